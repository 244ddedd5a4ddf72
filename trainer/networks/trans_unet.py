"""TransUNet: Chen et al. 2021, arXiv:2102.04306.

A ResNet-50 without its last stage computes features at 1/2, 1/4, 1/8 and 1/16 of the sides (64,
256, 512 and 1024 filters). Its convolutions have standardized weights (Qiao 2019,
arXiv:1903.10520),

    w' = (w - mean(w)) / sqrt(var(w) + 1e-5)   for each filter,

and group normalization. The grid of 1/16 is projected to tokens of 768 features; a learned position
embedding is added, and the 12 layers of ViT-B/16 follow (transformer.py). The decoder ("cascaded
upsampler") has a 3 x 3 convolution of 512 filters, and then four levels that upsample bilinearly by
2, concatenate the features of the ResNet (512, 256, 64, none), and have two 3 x 3 convolutions of
256, 128, 64 and 16 filters. A 3 x 3 convolution computes the output.

The default settings have 105,269,649 parameters with one grey channel and one class at 224 px, and
105,315,729 at 256 px, of which each layer of the transformer has 7,087,872; the published network
has about 105 million. Deviations:

- normalization is that of the decoder, by default of groups; the paper has batch normalization.
- No weights are from a network that was trained on ImageNet. The dense layers and the position
  embedding start with the random weights of Swin Transformer.
- A projected shortcut has 32 groups, like the other convolutions of the ResNet; the published
  implementation has one group for each filter.
- Upsampling has half-pixel centers, with which the levels are aligned at any size; the published
  implementation aligns the corners.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from contract.config.network.trans_unet import TransUNet
from trainer.networks.layers import (
    Dropout,
    conv_norm_activation,
    count_groups,
    probability_output,
)
from trainer.networks.outputs import NetworkOutputs
from trainer.networks.transformer import (
    SelfAttention,
    layer_normalization,
    transformer_block,
)


def build(network: TransUNet, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes."""
    *skips, deepest = resnet(network, slices)
    x = decoder(network, transformer(network, deepest), skips)
    return NetworkOutputs(probability_output(x, num_classes, kernel_size=3))


def resnet(network: TransUNet, slices: tf.Tensor) -> list[tf.Tensor]:
    """The features at 1/2, 1/4, 1/8 and 1/16 of the sides."""
    x = encoder_conv(slices, network.base_filters, 7, 2, "encoder_0_conv")
    features = [_relu(x, "encoder_0_activation")]
    x = keras.layers.MaxPool2D(3, strides=2, padding="same", name="encoder_1_pool")(features[0])
    for stage, depth in enumerate(network.encoder_depths, start=1):
        filters = network.base_filters * 2 ** (stage - 1)
        for block in range(1, depth + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = residual_block(x, filters, stride, f"encoder_{stage}_block_{block}")
        features.append(x)
    return features


def residual_block(x: tf.Tensor, filters: int, stride: int, name: str) -> tf.Tensor:
    """A bottleneck block, [B, H, W, C] to [B, H / stride, W / stride, 4 filters]."""
    shortcut = x
    if x.shape[-1] != 4 * filters or stride > 1:
        shortcut = encoder_conv(x, 4 * filters, 1, stride, f"{name}_shortcut")
    x = _relu(encoder_conv(x, filters, 1, 1, f"{name}_conv_1"), f"{name}_activation_1")
    x = _relu(encoder_conv(x, filters, 3, stride, f"{name}_conv_2"), f"{name}_activation_2")
    x = encoder_conv(x, 4 * filters, 1, 1, f"{name}_conv_3")
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return _relu(x, f"{name}_activation_3")


def encoder_conv(x: tf.Tensor, filters: int, kernel_size: int, stride: int, name: str) -> tf.Tensor:
    """A convolution of the ResNet with its normalization."""
    x = StandardizedConv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return keras.layers.GroupNormalization(count_groups(filters, 32), name=f"{name}_norm")(x)


def transformer(network: TransUNet, features: tf.Tensor) -> tf.Tensor:
    """The features at 1/16 of the sides, [B, h, w, C] to [B, h, w, hidden_size]."""
    _, height, width, _ = keras.backend.int_shape(features)
    x = keras.layers.Conv2D(network.hidden_size, 1, name="embed_conv")(features)
    x = keras.layers.Reshape((height * width, network.hidden_size), name="embed_tokens")(x)
    x = PositionEmbedding(name="embed_position")(x)
    x = Dropout(network.dropout_rate, name="embed_dropout")(x)
    for layer in range(1, network.num_transformer_layers + 1):
        name = f"transformer_{layer}"
        attention = SelfAttention(network.num_heads, f"{name}_attention")
        x = transformer_block(x, attention, network.mlp_dim, name, network.dropout_rate)
    x = layer_normalization("transformer_norm")(x)
    return keras.layers.Reshape((height, width, network.hidden_size), name="transformer_map")(x)


def decoder(network: TransUNet, x: tf.Tensor, skips: Sequence[tf.Tensor]) -> tf.Tensor:
    """The decoder's features in the size of the slices; skips: the ResNet's, finest first."""
    x = decoder_conv(network, x, 2 * network.decoder_filters[0], "decoder_4")
    for level, filters in zip(reversed(range(4)), network.decoder_filters, strict=True):
        stage = f"decoder_{level}"
        x = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"{stage}_upsample")(x)
        if level > 0:
            x = keras.layers.Concatenate(name=f"{stage}_concatenate")([x, skips[level - 1]])
        x = decoder_conv(network, x, filters, f"{stage}_1")
        x = decoder_conv(network, x, filters, f"{stage}_2")
    return x


def decoder_conv(network: TransUNet, x: tf.Tensor, filters: int, stage: str) -> tf.Tensor:
    """A convolution of the decoder with normalization and activation."""
    return conv_norm_activation(x, filters, network.normalization, "relu", stage)


def _relu(x: tf.Tensor, name: str) -> tf.Tensor:
    return keras.layers.Activation("relu", name=name)(x)


class StandardizedConv2D(keras.layers.Conv2D):
    """A convolution whose filters are standardized before they are used.

    The mean and the variance are computed in float32, of weights in the precision of the network.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution with the standardized kernel."""
        weights = tf.cast(kernel, tf.float32)
        mean, variance = tf.nn.moments(weights, axes=[0, 1, 2])
        standardized = (weights - mean) * tf.math.rsqrt(variance + 1e-5)
        return super().convolution_op(inputs, tf.cast(standardized, inputs.dtype))


class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector to the token of each position, [B, N, C] to the same shape."""

    def build(self, input_shape: Sequence[int]) -> None:
        """Create the vectors."""
        self.embedding = self.add_weight(
            name="embedding",
            shape=tuple(input_shape[1:]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The tokens with their positions."""
        return inputs + self.embedding
