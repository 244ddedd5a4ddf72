"""The flexible UNet: Ronneberger, Fischer & Brox 2015, arXiv:1505.04597.

Deviations from the paper: convolutions keep the size ("same" padding), so that the mask has the
size of the slice; normalization and dropout are settings; kernel size and dilation may be larger at
the first levels, from which they shrink level by level (by 2 down to 3, and by 1 down to 1).
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from contract.config.network.unet import UNetSection
from trainer.networks import layers
from trainer.networks.filter_counts import count_filters
from trainer.networks.layers import Dropout, conv_norm_activation, probability_output
from trainer.networks.outputs import NetworkOutputs

SkipConnection = Callable[[Any, int, tf.Tensor, tf.Tensor], tf.Tensor]
"""skip(network, level, features, coarser): what the decoder gets of the encoder's features of a
level; coarser: the decoder's features of the next level, before they are upsampled."""
Block = Callable[[Any, int, tf.Tensor, str], tf.Tensor]
"""block(network, level, x, stage): the convolutions of a level of encoder or decoder."""
Bottleneck = Callable[[Any, tf.Tensor], tf.Tensor]
"""bottleneck(network, x): what the decoder gets of the deepest features."""


def build(
    network: UNetSection,
    slices: tf.Tensor,
    num_classes: int,
    skip: SkipConnection | None = None,
    block: Block | None = None,
    bottleneck: Bottleneck | None = None,
) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes.

    skip, block, bottleneck: what another network of this shape has in place of the UNet's.
    """
    block = block or conv_block
    features = encoder(network, slices, block)
    if bottleneck:
        features[-1] = bottleneck(network, features[-1])
    levels = decoder(network, features, skip, block)
    probability = probability_output(levels[0], num_classes)
    if not network.deep_supervision:
        return NetworkOutputs(probability)
    # As in nnU-Net (Isensee 2021): not of the deepest of three or more levels of the decoder.
    side = [
        probability_output(
            levels[level], num_classes, name=f"side_{level}_probability", scale=2**level
        )
        for level in range(1, max(len(levels) - 1, min(2, len(levels))))
    ]
    return NetworkOutputs(probability, side, [0.5**level for level in range(1, len(side) + 1)])


def encoder(network: UNetSection, slices: tf.Tensor, block: Block) -> list[tf.Tensor]:
    """The features of every level, finest first: [B, H / 2^level, W / 2^level, filters]."""
    features = [block(network, 0, slices, "encoder_0")]
    for level in range(1, network.num_layers):
        coarser = keras.layers.MaxPool2D(name=f"encoder_{level}_pool")(features[-1])
        features.append(block(network, level, coarser, f"encoder_{level}"))
    return features


def decoder(
    network: UNetSection, features: Sequence[tf.Tensor], skip: SkipConnection | None, block: Block
) -> list[tf.Tensor]:
    """The decoder's features of every level but the deepest, finest first."""
    x, levels = features[-1], []
    for level in reversed(range(network.num_layers - 1)):
        filters, stage = level_filters(network, level), f"decoder_{level}"
        upsampled = keras.layers.Conv2DTranspose(
            filters, 2, strides=2, padding="same", name=f"{stage}_upsample"
        )(x)
        skipped = skip(network, level, features[level], x) if skip else features[level]
        x = keras.layers.Concatenate(name=f"{stage}_concatenate")([skipped, upsampled])
        x = block(network, level, x, stage)
        levels.append(x)
    return levels[::-1]


def conv_block(network: UNetSection, level: int, x: tf.Tensor, stage: str) -> tf.Tensor:
    """Two convolutions, each with normalization and activation, then dropout.

    stage: the beginning of the names of its layers, such as "encoder_0".
    """
    for number in (1, 2):
        x = conv_norm_activation(
            x,
            level_filters(network, level),
            network.normalization,
            network.activation,
            f"{stage}_{number}",
            level_kernel_size(network, level),
            level_dilation(network, level),
        )
    return Dropout(layers.level_dropout(network.dropout_rate, level), name=f"{stage}_dropout")(x)


def level_filters(network: UNetSection, level: int) -> int:
    """Filters of a level of a UNet."""
    return count_filters(network.base_filters, network.max_filters, level)


def level_kernel_size(network: UNetSection, level: int) -> int:
    """Kernel size of a level: smaller by 2 with each level, down to 3 (or to base_kernels = 1)."""
    return max(network.base_kernels - 2 * level, min(3, network.base_kernels))


def level_dilation(network: UNetSection, level: int) -> int:
    """Dilation of a level: smaller by 1 with each level, down to 1."""
    return max(network.dilation - level, 1)
