"""UNet 3+: Huang et al. 2020, arXiv:2004.08790.

The encoder is that of the flexible UNet (unet.py). With N levels, E_k the encoder's features of
level k, and D_k the decoder's with D_(N-1) = E_(N-1), a level of the decoder takes all scales:

    D_i = fuse([conv(pool(E_k)) for k < i] + [conv(E_i)] + [conv(upsample(D_k)) for k > i])

pool is a max pooling and upsample a bilinear interpolation to the grid of level i; each conv has
skip_filters (64 in the paper), and fuse is a convolution of the N x skip_filters concatenated
channels to as many (320). All convolutions have normalization and activation.

deep_supervision: a 3 x 3 convolution of D_1 to D_(N-1), upsampled bilinearly before its sigmoid or
softmax, is trained on the masks with the weight of the output.

classification_guided: presence = sigmoid(global max(conv_1x1(dropout(E_(N-1))))), trained on
whether the slice contains a class. All probabilities of a class are multiplied by presence > 0.5.

Parameters: 26.97 M in the paper, which calls its encoder VGG-16; that is the number with the two
convolutions per level of the UNet, 64 to 1024 filters, which the authors published. The number of
this one differs by the biases before batch normalization, which have no effect, and by the channels
of the slice.

Deviations: the number of levels and all sizes are settings, and so are normalization and dropout.
The multiplication by presence > 0.5, which has no gradient, applies outside of training only: a
classifier that has learned nothing yet would remove slices from the training of the decoder. The
validation does multiply, so its metrics are those of the masks that are served. Presence is a
sigmoid per class instead of a pair of channels with argmax, which is the same for one class.
"""

import tensorflow as tf
import tf_keras as keras

from contract.config.network.unet3_plus import UNet3Plus
from trainer.networks import unet
from trainer.networks.layers import (
    Dropout,
    conv_norm_activation,
    level_dropout,
    probability_output,
    upsample_bilinear,
)
from trainer.networks.outputs import NetworkOutputs

_CLASSIFICATION_DROPOUT = 0.5


def build(network: UNet3Plus, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes."""
    features = unet.encoder(network, slices, unet.conv_block)
    levels = decoder(network, features)
    maps = [probability_output(levels[0], num_classes, 3)]
    if network.deep_supervision:
        for level in range(1, network.num_layers):
            name = f"side_{level}_probability"
            maps.append(probability_output(levels[level], num_classes, 3, name, 2**level))
    presence = None
    if network.classification_guided:
        presence = classify(features[-1], num_classes)
        maps = [
            PresenceGate(dtype="float32", name=f"presence_gate_{index}")([each, presence])
            for index, each in enumerate(maps)
        ]
    return NetworkOutputs(maps[0], maps[1:], [1.0] * (len(maps) - 1), presence)


def decoder(network: UNet3Plus, features: list[tf.Tensor]) -> list[tf.Tensor]:
    """The decoder's features of every level, finest first; the deepest are the encoder's.

    features: the encoder's features of every level, finest first.
    """
    sources = list(features)
    for level in reversed(range(network.num_layers - 1)):
        # The coarser sources are the decoder's by now, the finer ones the encoder's.
        sources[level] = fuse_scales(network, level, sources)
    return sources


def fuse_scales(network: UNet3Plus, level: int, sources: list[tf.Tensor]) -> tf.Tensor:
    """[B, H, W, num_layers x skip_filters] features of a level from those of all levels."""
    stage, filters = f"decoder_{level}", network.skip_filters or network.base_filters
    scales = [
        convolve(network, level, resample(x, source, level), filters, f"{stage}_from_{source}")
        for source, x in enumerate(sources)
    ]
    x = keras.layers.Concatenate(name=f"{stage}_concatenate")(scales)
    x = convolve(network, level, x, filters * len(scales), f"{stage}_fuse")
    return Dropout(level_dropout(network.dropout_rate, level), name=f"{stage}_dropout")(x)


def resample(x: tf.Tensor, source: int, level: int) -> tf.Tensor:
    """The features of level `source` on the grid of another level."""
    name = f"decoder_{level}_from_{source}"
    if source < level:
        return keras.layers.MaxPool2D(2 ** (level - source), name=f"{name}_pool")(x)
    return upsample_bilinear(x, 2 ** (source - level), f"{name}_upsample")


def convolve(network: UNet3Plus, level: int, x: tf.Tensor, filters: int, stage: str) -> tf.Tensor:
    """A convolution with the kernel size and the dilation of a level."""
    return conv_norm_activation(
        x,
        filters,
        network.normalization,
        network.activation,
        stage,
        unet.level_kernel_size(network, level),
        unet.level_dilation(network, level),
    )


def classify(x: tf.Tensor, num_classes: int) -> tf.Tensor:
    """The probability [B, K] that a slice has any pixel of a class, float32."""
    x = Dropout(_CLASSIFICATION_DROPOUT, name="presence_dropout")(x)
    x = keras.layers.Conv2D(num_classes, 1, dtype="float32", name="presence_conv")(x)
    x = keras.layers.GlobalMaxPool2D(dtype="float32", name="presence_pool")(x)
    return keras.layers.Activation("sigmoid", dtype="float32", name="presence")(x)


class PresenceGate(keras.layers.Layer):
    """Sets the probabilities [B, H, W, K] of classes with a presence [B, K] up to 0.5 to 0.

    In training it returns the probabilities themselves.
    """

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """inputs: the probabilities and the presence."""
        maps, presence = inputs
        if training:
            return maps
        return maps * tf.cast(presence > 0.5, maps.dtype)[:, None, None, :]
