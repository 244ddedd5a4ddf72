"""The flexible UNet: Ronneberger, Fischer & Brox 2015, arXiv:1505.04597.

Deviations from the paper: convolutions keep the size ("same" padding), so that the mask has the
size of the slice; normalization and dropout are settings; kernel size and dilation may be larger at
the first levels, from which they shrink level by level (by 2 down to 3, and by 1 down to 1).
"""

import tensorflow as tf
import tf_keras as keras

from contract.config import Network
from trainer.networks.layers import (
    Dropout,
    create_activation,
    create_normalization,
    probability_output,
)


def build(network: Network, num_classes: int, input_channels: int) -> keras.Model:
    """[B, H, W, C] normalized intensities to [B, H, W, num_classes] probabilities, float32.

    H and W are network.image_shape, C is input_channels.
    """
    inputs = keras.Input((*network.image_shape, input_channels), name="slices")
    outputs = probability_output(decoder(network, encoder(network, inputs)), num_classes)
    return keras.Model(inputs, outputs, name="unet")


def encoder(network: Network, inputs: tf.Tensor) -> list[tf.Tensor]:
    """The features of every level, finest first."""
    features = [conv_block(network, 0, inputs)]
    for level in range(1, network.num_layers):
        features.append(conv_block(network, level, keras.layers.MaxPool2D()(features[-1])))
    return features


def decoder(network: Network, features: list[tf.Tensor]) -> tf.Tensor:
    """The features of the first level after upsampling through all levels."""
    x = features[-1]
    for level in reversed(range(network.num_layers - 1)):
        filters = level_filters(network, level)
        upsample = keras.layers.Conv2DTranspose(filters, 2, strides=2, padding="same")
        x = keras.layers.Concatenate()([features[level], upsample(x)])
        x = conv_block(network, level, x)
    return x


def conv_block(network: Network, level: int, x: tf.Tensor) -> tf.Tensor:
    """Two convolutions, each with normalization and activation, then dropout."""
    filters = level_filters(network, level)
    for _ in range(2):
        x = keras.layers.Conv2D(
            filters,
            level_kernel_size(network, level),
            dilation_rate=level_dilation(network, level),
            padding="same",
            use_bias=network.normalization == "none",
            kernel_initializer="he_normal",
        )(x)
        x = create_activation(network)(create_normalization(network, filters)(x))
    return Dropout(level_dropout(network, level))(x)


def level_filters(network: Network, level: int) -> int:
    """Filters of a level: they double with each level, up to network.max_filters if it is set."""
    doubled = network.base_filters * 2**level
    return doubled if network.max_filters is None else min(doubled, network.max_filters)


def level_kernel_size(network: Network, level: int) -> int:
    """Kernel size of a level: smaller by 2 with each level, down to 3 (or to base_kernels = 1)."""
    return max(network.base_kernels - 2 * level, min(3, network.base_kernels))


def level_dilation(network: Network, level: int) -> int:
    """Dilation of a level: smaller by 1 with each level, down to 1."""
    return max(network.dilation - level, 1)


def level_dropout(network: Network, level: int) -> float:
    """Dropout rate of a level: proportional to the level, at most 0.5."""
    return min(network.dropout_rate * level, 0.5)
