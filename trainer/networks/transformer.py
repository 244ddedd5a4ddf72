"""The blocks of transformers: Vaswani 2017, arXiv:1706.03762, and Dosovitskiy 2020,
arXiv:2010.11929.

A block normalizes before each of its two parts and adds their outputs to its input:

    y = x + projection(attention(queries, keys, values of norm(x)))
    z = y + MLP(norm(y)),   MLP(t) = W_2 gelu(W_1 t + b_1) + b_2

Its features are the last axis; which tokens attend to each other is up to the attention layer.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from trainer.networks.layers import Dropout, Layer


def transformer_block(
    x: tf.Tensor,
    attention: Layer,
    mlp_units: int,
    name: str,
    dropout_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> tf.Tensor:
    """A block, [B, ..., C] to the same shape.

    Args:
        x: The tokens.
        attention: From the queries, keys and values [B, ..., 3 C] to the attended values
            [B, ..., C].
        mlp_units: The hidden features of the MLP.
        name: The beginning of the names of its layers.
        dropout_rate: Of the dropout after each dense layer but the queries, keys and values.
        drop_path_rate: The probability that a part is skipped for a sample in training.
    """
    features = keras.backend.int_shape(x)[-1]
    y = layer_normalization(f"{name}_norm_1")(x)
    y = attention(dense(3 * features, f"{name}_qkv")(y))
    y = dense(features, f"{name}_projection")(y)
    y = Dropout(dropout_rate, name=f"{name}_dropout")(y)
    x = _add_residual(x, y, drop_path_rate, f"{name}_add_1")
    y = layer_normalization(f"{name}_norm_2")(x)
    y = _mlp(y, mlp_units, dropout_rate, f"{name}_mlp")
    return _add_residual(x, y, drop_path_rate, f"{name}_add_2")


def dense(units: int, name: str, use_bias: bool = True) -> keras.layers.Dense:
    """A dense layer with the initial weights of Swin Transformer."""
    initializer = keras.initializers.TruncatedNormal(stddev=0.02)
    return keras.layers.Dense(units, use_bias=use_bias, kernel_initializer=initializer, name=name)


def layer_normalization(name: str) -> keras.layers.LayerNormalization:
    """The normalization of each token over its features, computed in float32."""
    return keras.layers.LayerNormalization(epsilon=1e-5, name=name)


def _mlp(x: tf.Tensor, units: int, dropout_rate: float, name: str) -> tf.Tensor:
    """The MLP of a block, [B, ..., C] to the same shape."""
    features = keras.backend.int_shape(x)[-1]
    x = dense(units, f"{name}_dense_1")(x)
    x = keras.layers.Activation("gelu", name=f"{name}_activation")(x)
    x = Dropout(dropout_rate, name=f"{name}_dropout_1")(x)
    x = dense(features, f"{name}_dense_2")(x)
    return Dropout(dropout_rate, name=f"{name}_dropout_2")(x)


def _add_residual(x: tf.Tensor, y: tf.Tensor, drop_path_rate: float, name: str) -> tf.Tensor:
    """x + y, or x alone for the samples for which the part that computed y is skipped."""
    noise_shape = (None, *[1] * (len(y.shape) - 1))
    y = Dropout(drop_path_rate, noise_shape, name=f"{name}_drop_path")(y)
    return keras.layers.Add(name=name)([x, y])


class SelfAttention(keras.layers.Layer):
    """Attention of every token to all tokens, [B, N, 3 C] to [B, N, C]."""

    def __init__(self, num_heads: int, name: str) -> None:
        super().__init__(name=name)
        self.num_heads = num_heads

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The attended values of the queries, keys and values."""
        return attend(inputs, self.num_heads)


def attend(qkv: tf.Tensor, num_heads: int, biases: Sequence[tf.Tensor] = ()) -> tf.Tensor:
    """softmax(q k^T / sqrt(d) + biases) v of each head, the softmax in float32.

    Args:
        qkv: Queries, keys and values, [B, ..., N, 3 C] for N tokens that attend to each other.
        num_heads: The heads: d = C / num_heads.
        biases: Tensors in float32 that broadcast to [B, ..., num_heads, N, N].

    Returns:
        The attended values, [B, ..., N, C].
    """
    _, *groups, tokens, channels = keras.backend.int_shape(qkv)
    head_size = channels // 3 // num_heads
    swap = [*range(len(groups) + 1), *(axis + len(groups) for axis in (2, 1, 3))]
    split = [-1, *groups, tokens, num_heads, head_size]
    q, k, v = (tf.transpose(tf.reshape(each, split), swap) for each in tf.split(qkv, 3, axis=-1))
    scores = tf.cast(tf.matmul(q * head_size**-0.5, k, transpose_b=True), tf.float32)
    for bias in biases:
        scores += bias
    attended = tf.matmul(tf.cast(tf.nn.softmax(scores), v.dtype), v)
    return tf.reshape(tf.transpose(attended, swap), [-1, *groups, tokens, channels // 3])
