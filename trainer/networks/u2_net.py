"""U2-Net: Qin et al. 2020, arXiv:2005.09007.

A UNet of six levels whose blocks are UNets themselves. A residual U-block (RSU) of height L
computes y = U(f(x)) + f(x): f is a convolution to the filters of the level, and U has L - 1
convolutions with a max pooling between each two, one with dilation 2 at the bottom, and L - 1
convolutions upwards, each of the bilinearly upsampled features and those of the same size. The
levels have RSU-7, -6, -5, -4, and twice RSU-4F, which has dilations 1, 2, 4, 8 instead of pooling;
the decoder mirrors the first five. All convolutions are 3 x 3 with normalization and activation.

Six side outputs S_k, 3 x 3 convolutions of the decoder's levels and of the deepest, are upsampled
bilinearly; the output is a 1 x 1 convolution of their concatenated logits. With deep_supervision
all seven are trained on the masks with equal weights, without it the output alone.

Parameters: 44.01 M in the paper's full size (176.3 MB), 1.13 M in the small one (4.7 MB), both for
RGB. The numbers of this one differ by the biases before batch normalization, which have no effect,
and by the channels of the slice.

Deviations: filters, normalization, activation and dropout are settings; the paper has no dropout,
which is after the block of a level. Several classes have a softmax, whose logits are fused. The
fusion starts as the mean of the side outputs, as in HED (Xie & Tu 2015, arXiv:1504.06375): with
random weights it would start at a random foreground. Slices are padded to a multiple of 32 instead
of resizing the features of a level to those of another.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from contract.config.network.u2_net import U2Net
from trainer.networks.layers import (
    ClassProbabilities,
    Dropout,
    conv_norm_activation,
    count_logits,
    level_dropout,
    logit_output,
    upsample_bilinear,
)
from trainer.networks.outputs import NetworkOutputs

_LEVELS = 6


class BlockSize(NamedTuple):
    """The size of a residual U-block.

    Attributes:
        height: L, the number of its levels.
        pools: Whether its levels are pooled; otherwise they are dilated (RSU-4F).
        inner: Filters inside it.
        outer: Filters of its output.
    """

    height: int
    pools: bool
    inner: int
    outer: int


# Height and pools of each level.
_SHAPES = ((7, True), (6, True), (5, True), (4, True), (4, False), (4, False))
# The inner and outer filters of each level, in quarters of base_filters.
_ENCODER_QUARTERS = {
    "full": ((2, 4), (2, 8), (4, 16), (8, 32), (16, 32), (16, 32)),
    "small": ((1, 4),) * _LEVELS,
}
_DECODER_QUARTERS = {
    "full": ((1, 4), (2, 4), (4, 8), (8, 16), (16, 32)),
    "small": ((1, 4),) * (_LEVELS - 1),
}


def build(network: U2Net, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes."""
    levels = decoder(network, encoder(network, slices))
    side = [side_logits(x, level, num_classes) for level, x in enumerate(levels)]
    probability = to_probability(fuse(side, num_classes), "probability")
    if not network.deep_supervision:
        return NetworkOutputs(probability)
    supervised = [
        to_probability(logits, f"side_{level}_probability") for level, logits in enumerate(side)
    ]
    return NetworkOutputs(probability, supervised, [1.0] * len(supervised))


def encoder(network: U2Net, slices: tf.Tensor) -> list[tf.Tensor]:
    """The features of every level, finest first."""
    features = [residual_u_block(network, 0, slices, "encoder")]
    for level in range(1, _LEVELS):
        coarser = keras.layers.MaxPool2D(name=f"encoder_{level}_pool")(features[-1])
        features.append(residual_u_block(network, level, coarser, "encoder"))
    return features


def decoder(network: U2Net, features: list[tf.Tensor]) -> list[tf.Tensor]:
    """The decoder's features of every level, finest first; the deepest are the encoder's."""
    levels = list(features)
    for level in reversed(range(_LEVELS - 1)):
        stage = f"decoder_{level}"
        upsampled = upsample_bilinear(levels[level + 1], 2, f"{stage}_upsample")
        x = keras.layers.Concatenate(name=f"{stage}_concatenate")([upsampled, features[level]])
        levels[level] = residual_u_block(network, level, x, "decoder")
    return levels


def side_logits(x: tf.Tensor, level: int, num_classes: int) -> tf.Tensor:
    """The logits that a level computes, float32 in the size of the first level."""
    logits = logit_output(x, num_classes, 3, f"side_{level}_logits")
    return upsample_bilinear(logits, 2**level, f"side_{level}_upsample", "float32")


def to_probability(logits: tf.Tensor, name: str) -> tf.Tensor:
    """Logits to the probability of each class, float32 [B, H, W, K]."""
    return ClassProbabilities(dtype="float32", name=name)(logits)


def fuse(side: list[tf.Tensor], num_classes: int) -> tf.Tensor:
    """The logits of the output from those of the side outputs."""
    channels = count_logits(num_classes)
    mean = np.tile(np.eye(channels) / len(side), (len(side), 1))[None, None]
    concatenated = keras.layers.Concatenate(dtype="float32", name="fusion_concatenate")(side)
    return keras.layers.Conv2D(
        channels,
        1,
        kernel_initializer=keras.initializers.Constant(mean),
        dtype="float32",
        name="fusion",
    )(concatenated)


def block_size(network: U2Net, level: int, side: str) -> BlockSize:
    """The block of a level. side: "encoder" or "decoder"."""
    quarters = _ENCODER_QUARTERS if side == "encoder" else _DECODER_QUARTERS
    inner, outer = (
        max(network.base_filters * number // 4, 1) for number in quarters[network.variant][level]
    )
    return BlockSize(*_SHAPES[level], inner, outer)


def residual_u_block(network: U2Net, level: int, x: tf.Tensor, side: str) -> tf.Tensor:
    """The block of a level, then dropout: [B, H, W, C] to [B, H, W, outer filters]."""
    size, stage = block_size(network, level, side), f"{side}_{level}"
    residual = convolve(network, x, size.outer, f"{stage}_input")
    features = inner_encoder(network, size, residual, stage)
    x = inner_decoder(network, size, features, stage)
    x = keras.layers.Add(name=f"{stage}_add")([x, residual])
    return Dropout(level_dropout(network.dropout_rate, level), name=f"{stage}_dropout")(x)


def inner_encoder(network: U2Net, size: BlockSize, x: tf.Tensor, stage: str) -> list[tf.Tensor]:
    """The features of every level inside a block on its way down, finest first."""
    features = []
    for depth in range(1, size.height + 1):
        is_bottom = depth == size.height
        # The last two levels have the same grid.
        if size.pools and depth > 1 and not is_bottom:
            x = keras.layers.MaxPool2D(name=f"{stage}_down_{depth}_pool")(x)
        dilation = inner_dilation(size, depth)
        x = convolve(network, x, size.inner, f"{stage}_down_{depth}", dilation)
        features.append(x)
    return features


def inner_decoder(
    network: U2Net, size: BlockSize, features: list[tf.Tensor], stage: str
) -> tf.Tensor:
    """The features of a block's first level on its way up."""
    x = features[-1]
    for depth in reversed(range(1, size.height)):
        name = f"{stage}_up_{depth}"
        if size.pools and depth < size.height - 1:
            x = upsample_bilinear(x, 2, f"{name}_upsample")
        x = keras.layers.Concatenate(name=f"{name}_concatenate")([x, features[depth - 1]])
        filters = size.outer if depth == 1 else size.inner
        x = convolve(network, x, filters, name, inner_dilation(size, depth))
    return x


def inner_dilation(size: BlockSize, depth: int) -> int:
    """The dilation of a level inside a block, from 1."""
    if size.pools:
        return 2 if depth == size.height else 1
    return 2 ** (depth - 1)


def convolve(
    network: U2Net, x: tf.Tensor, filters: int, stage: str, dilation: int = 1
) -> tf.Tensor:
    """A 3 x 3 convolution with the normalization and activation of the settings."""
    return conv_norm_activation(
        x, filters, network.normalization, network.activation, stage, dilation=dilation
    )
