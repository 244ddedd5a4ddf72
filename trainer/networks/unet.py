"""The flexible UNet: Ronneberger, Fischer & Brox 2015, arXiv:1505.04597.

Deviations from the paper: convolutions keep the size ("same" padding), so the mask has the size
of the slice; normalisation and dropout are choices; kernel side and dilation may be larger at the
first levels, where they shrink level by level (by 2 down to 3, and by 1 down to 1).
"""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from contract.config import Network
from trainer.networks.layers import Dropout

Layer = Callable[[tf.Tensor], tf.Tensor]


def build(network: Network) -> keras.Model:
    """[B, S, S, C] intensities in 0..1 to [B, S, S, 1] probabilities, float32.

    S is network.image_size, C network.image_channels.
    """
    side = network.image_size
    inputs = keras.Input((side, side, network.image_channels), name="slices")
    outputs = probability(decode(network, encode(network, inputs)))
    return keras.Model(inputs, outputs, name="unet")


def encode(network: Network, inputs: tf.Tensor) -> list[tf.Tensor]:
    """The features of every level, finest first."""
    features = [block(network, 0, inputs)]
    for level in range(1, network.num_layers):
        features.append(block(network, level, keras.layers.MaxPool2D()(features[-1])))
    return features


def decode(network: Network, features: list[tf.Tensor]) -> tf.Tensor:
    """The features of the first level after the way back up."""
    x = features[-1]
    for level in reversed(range(network.num_layers - 1)):
        up = keras.layers.Conv2DTranspose(filters(network, level), 2, strides=2, padding="same")
        x = keras.layers.Concatenate()([features[level], up(x)])
        x = block(network, level, x)
    return x


def block(network: Network, level: int, x: tf.Tensor) -> tf.Tensor:
    """Two convolutions, each normalised and activated, then dropout."""
    for _ in range(2):
        x = keras.layers.Conv2D(
            filters(network, level),
            kernel(network, level),
            dilation_rate=dilation(network, level),
            padding="same",
            use_bias=network.normalization == "none",
            kernel_initializer="he_normal",
        )(x)
        x = activation(network)(normalization(network, filters(network, level))(x))
    return Dropout(dropout(network, level))(x)


def probability(x: tf.Tensor) -> tf.Tensor:
    """One probability a pixel; float32 whatever the precision of the network.

    The bias starts at a foreground of 5 %: from one half, the first epochs go by in learning that
    most of a slice is background (Lin 2017, arXiv:1708.02002, section 4.1).
    """
    return keras.layers.Conv2D(
        1,
        1,
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(-3.0),
        dtype="float32",
        name="probability",
    )(x)


def filters(network: Network, level: int) -> int:
    """Filters of a level: doubled with each, capped where the settings say so."""
    doubled = network.base_filters * 2**level
    return doubled if network.max_filters is None else min(doubled, network.max_filters)


def kernel(network: Network, level: int) -> int:
    """Kernel side of a level: smaller by 2 with each, down to 3 (or base_kernels, if that is 1)."""
    return max(network.base_kernels - 2 * level, min(3, network.base_kernels))


def dilation(network: Network, level: int) -> int:
    """Dilation of a level: smaller by 1 with each, down to 1."""
    return max(network.dilation - level, 1)


def dropout(network: Network, level: int) -> float:
    """Dropout rate of a level: grows linearly with it, at most 0.5."""
    return min(network.dropout_rate * level, 0.5)


def normalization(network: Network, count: int) -> Layer:
    """The normalisation of a convolution with this many filters."""
    match network.normalization:
        case "batch":
            return keras.layers.BatchNormalization(momentum=0.9)
        case "sync_batch":
            return keras.layers.BatchNormalization(momentum=0.9, synchronized=True)
        case "group":
            return keras.layers.GroupNormalization(groups(count))
        case "none":
            return tf.identity


def groups(count: int) -> int:
    """Groups for group normalisation: the largest number up to 8 that divides the filters."""
    return next(number for number in range(8, 0, -1) if count % number == 0)


def activation(network: Network) -> Layer:
    """The activation after each convolution; mish is Misra 2019, arXiv:1908.08681."""
    return (
        keras.layers.LeakyReLU(0.01)
        if network.activation == "leaky_relu"
        else (keras.layers.Activation(network.activation))
    )
