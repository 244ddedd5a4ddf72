"""Swin-Unet: Cao et al. 2021, arXiv:2105.05537.

A U-Net whose stages are Swin Transformer blocks (Liu 2021, arXiv:2103.14030). Patches of
patch_size x patch_size pixels are embedded as tokens of embed_dim features; stage s has
C = 2^s embed_dim features on a grid of 1 / (patch_size 2^s) of the sides. In a block, attention is
computed in windows of M x M tokens,

    softmax(q k^T / sqrt(d) + B) v,   B(i, j) = table[row_i - row_j, column_i - column_j],

with a learned table for each head; every second block shifts the windows by M // 2 tokens
cyclically, and tokens that are adjacent only because of that do not attend to each other.
Patch merging: the C features of 2 x 2 tokens are concatenated, normalized, and projected to 2 C.
Patch expanding: each token is projected to 2 x 2 tokens of C / 2 features, which are normalized; it
is a transposed convolution whose kernel is its stride. The decoder concatenates the encoder's
features of the same stage and projects them to C. The last expansion is from tokens to pixels.

The default settings have 27,165,061 parameters with one grey channel and one class, and 27,169,006
with three channels and nine classes; the published network has about 27 million. Deviations:

- A stage whose sides are not multiples of the window is padded (Swin Transformer does so for
  detection), and the padding is excluded from attention, so that any image size is possible.
  Multiples of 224 px need no padding with the default settings.
- The window of a stage is at most its map, side by side and not only for both sides, so that narrow
  slices are possible. Such a side is not shifted.
- The skip connections start after the blocks of a stage, as in figure 1 of the paper; in the
  published implementation they start before them.
- The weights are not those of a Swin Transformer that was trained on ImageNet.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from contract.config.network.swin_unet import SwinUNet
from trainer.networks.layers import Dropout, probability_output
from trainer.networks.outputs import NetworkOutputs
from trainer.networks.transformer import attend, dense, layer_normalization, transformer_block

# Added to a score, it makes the attention 0; float16 can represent it.
_EXCLUDED = -1e4


def build(network: SwinUNet, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes."""
    x = decoder(network, encoder(network, slices))
    x = patch_expanding(x, network.embed_dim, network.patch_size, "output_expand")
    return NetworkOutputs(probability_output(x, num_classes))


def encoder(network: SwinUNet, slices: tf.Tensor) -> list[tf.Tensor]:
    """The features of every stage, finest first; those of the deepest are normalized."""
    size = network.patch_size
    x = keras.layers.Conv2D(network.embed_dim, size, strides=size, name="embed_conv")(slices)
    x = layer_normalization("embed_norm")(x)
    x = Dropout(network.dropout_rate, name="embed_dropout")(x)
    features = [swin_blocks(network, 0, x, "encoder_0")]
    for stage in range(1, len(network.depths)):
        x = patch_merging(features[-1], f"encoder_{stage}_merge")
        features.append(swin_blocks(network, stage, x, f"encoder_{stage}"))
    return [*features[:-1], layer_normalization("encoder_norm")(features[-1])]


def decoder(network: SwinUNet, features: Sequence[tf.Tensor]) -> tf.Tensor:
    """The decoder's features of the first stage, normalized."""
    x = features[-1]
    for stage in reversed(range(len(features) - 1)):
        name, channels = f"decoder_{stage}", network.embed_dim * 2**stage
        x = patch_expanding(x, channels, 2, f"{name}_expand")
        x = keras.layers.Concatenate(name=f"{name}_concatenate")([x, features[stage]])
        x = dense(channels, f"{name}_project")(x)
        x = swin_blocks(network, stage, x, name)
    return layer_normalization("decoder_norm")(x)


def swin_blocks(network: SwinUNet, stage: int, x: tf.Tensor, name: str) -> tf.Tensor:
    """The blocks of a stage, [B, H, W, C] to the same shape."""
    mlp_units = int(keras.backend.int_shape(x)[-1] * network.mlp_ratio)
    for block, drop_path_rate in enumerate(drop_path_rates(network, stage)):
        prefix = f"{name}_block_{block + 1}"
        attention = WindowAttention(
            network.num_heads[stage], network.window_size, block % 2 == 1, f"{prefix}_attention"
        )
        x = transformer_block(x, attention, mlp_units, prefix, network.dropout_rate, drop_path_rate)
    return x


def drop_path_rates(network: SwinUNet, stage: int) -> list[float]:
    """The rates of the blocks of a stage: from 0 in the first to the setting in the deepest."""
    rates = np.linspace(0, network.drop_path_rate, sum(network.depths)).tolist()
    first = sum(network.depths[:stage])
    return rates[first : first + network.depths[stage]]


def patch_merging(x: tf.Tensor, name: str) -> tf.Tensor:
    """Each 2 x 2 tokens to one, [B, H, W, C] to [B, H / 2, W / 2, 2 C]."""
    _, height, width, channels = keras.backend.int_shape(x)
    x = keras.layers.Reshape((height // 2, 2, width // 2, 2 * channels), name=f"{name}_split")(x)
    x = keras.layers.Permute((1, 3, 2, 4), name=f"{name}_permute")(x)
    x = keras.layers.Reshape((height // 2, width // 2, 4 * channels), name=f"{name}_reshape")(x)
    x = layer_normalization(f"{name}_norm")(x)
    return dense(2 * channels, f"{name}_project", use_bias=False)(x)


def patch_expanding(x: tf.Tensor, filters: int, factor: int, name: str) -> tf.Tensor:
    """Each token to factor x factor tokens, [B, H, W, C] to [B, factor H, factor W, filters]."""
    x = keras.layers.Conv2DTranspose(
        filters,
        factor,
        strides=factor,
        use_bias=False,
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        name=name,
    )(x)
    return layer_normalization(f"{name}_norm")(x)


class WindowAttention(keras.layers.Layer):
    """Attention in windows of a map, [B, H, W, 3 C] of queries, keys, values to [B, H, W, C].

    Attributes:
        window: Height and width of a window: at most those of the map.
        shift: By how many rows and columns the windows are shifted.
    """

    def __init__(self, num_heads: int, window_size: int, is_shifted: bool, name: str) -> None:
        super().__init__(name=name)
        self.num_heads, self.window_size, self.is_shifted = num_heads, window_size, is_shifted
        self.window = self.shift = (0, 0)

    def build(self, input_shape: Sequence[int]) -> None:
        """Create the table of the relative position bias."""
        sides = tuple(input_shape[1:3])
        self.window = tuple(min(self.window_size, side) for side in sides)
        self.shift = tuple(
            size // 2 if self.is_shifted and size < side else 0
            for size, side in zip(self.window, sides, strict=True)
        )
        self.table = self.add_weight(
            name="relative_position_bias",
            shape=(*(2 * size - 1 for size in self.window), self.num_heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The attended values: pads, shifts and splits the map, and then reverses it."""
        _, height, width, _ = keras.backend.int_shape(inputs)
        rows, columns = (
            side + -side % size for side, size in zip((height, width), self.window, strict=True)
        )
        x = tf.pad(inputs, [[0, 0], [0, rows - height], [0, columns - width], [0, 0]])
        if any(self.shift):
            x = tf.roll(x, [-size for size in self.shift], axis=(1, 2))
        biases = [self._position_bias(), *self._region_bias(height, width)]
        x = attend(split_windows(x, self.window), self.num_heads, biases)
        x = merge_windows(x, self.window, rows, columns)
        if any(self.shift):
            x = tf.roll(x, self.shift, axis=(1, 2))
        return x[:, :height, :width]

    def _position_bias(self) -> tf.Tensor:
        """The relative position bias of each head, [heads, N, N].

        A product with one-hot matrices: the gradient of a gather would be sparse, and on a GPU its
        sums would have a random order.
        """
        rows, columns = (tf.constant(one_hot_distances(size)) for size in self.window)
        bias = tf.einsum("ikr,rch->ikch", rows, self.table)
        bias = tf.einsum("ikch,jlc->hijkl", bias, columns)
        tokens = self.window[0] * self.window[1]
        return tf.reshape(bias, [self.num_heads, tokens, tokens])

    def _region_bias(self, height: int, width: int) -> list[tf.Tensor]:
        """What excludes tokens of other regions, [windows, 1, N, N], if a window has several."""
        regions = window_regions((height, width), self.window, self.shift)
        if (regions == regions[:, :1]).all():
            return []
        differs = tf.not_equal(regions[:, None, :, None], regions[:, None, None, :])
        return [_EXCLUDED * tf.cast(differs, tf.float32)]


def one_hot_distances(size: int) -> NDArray[np.float32]:
    """[size, size, 2 size - 1]: 1 at the index of the distance of two positions, i - j."""
    positions = np.arange(size)
    distances = positions[:, None] - positions[None, :] + size - 1
    return np.eye(2 * size - 1, dtype=np.float32)[distances]


def window_regions(
    sides: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> NDArray[np.int32]:
    """The region of each token of each window of a padded and shifted map, [windows, N].

    A window has several regions if it has padding, or tokens from opposite sides of the map.
    """
    axes = []
    for side, size, offset in zip(sides, window, shift, strict=True):
        position = np.roll(np.arange(side + -side % size), -offset)
        axes.append(np.where(position >= side, 2, position < offset).reshape(-1, 1, size))
    regions = 3 * axes[0][:, None, 0, :, None] + axes[1][None, :, 0, None, :]
    return regions.reshape(-1, window[0] * window[1]).astype(np.int32)


def split_windows(x: tf.Tensor, window: Sequence[int]) -> tf.Tensor:
    """[B, H, W, C] to the tokens of its windows, [B, windows, N, C]."""
    _, height, width, channels = keras.backend.int_shape(x)
    rows, columns = height // window[0], width // window[1]
    x = tf.reshape(x, [-1, rows, window[0], columns, window[1], channels])
    x = tf.transpose(x, [0, 1, 3, 2, 4, 5])
    return tf.reshape(x, [-1, rows * columns, window[0] * window[1], channels])


def merge_windows(x: tf.Tensor, window: Sequence[int], height: int, width: int) -> tf.Tensor:
    """The inverse of split_windows: [B, windows, N, C] to [B, H, W, C]."""
    channels = keras.backend.int_shape(x)[-1]
    rows, columns = height // window[0], width // window[1]
    x = tf.reshape(x, [-1, rows, columns, window[0], window[1], channels])
    x = tf.transpose(x, [0, 1, 3, 2, 4, 5])
    return tf.reshape(x, [-1, height, width, channels])
