"""The MultiResUNet: Ibtehaz & Rahman 2019, arXiv:1902.04049.

A UNet whose pairs of convolutions are MultiRes blocks and whose skip connections are Res paths. At
a level where the UNet has U filters, with W = alpha U:

    MultiRes block: a = conv3x3(x, W/6); b = conv3x3(a, W/3); c = conv3x3(b, W/2)
                    y = norm(relu(norm([a, b, c]) + conv1x1(x)))
    Res path:       y = norm(relu(relu(conv3x3(x, U)) + conv1x1(x, U))), a number of times

Every convolution is followed by normalization. The path of the first level has num_layers - 1
units, each further path one less: 4, 3, 2 and 1 with five levels.

The sixth and the third are 0.167 and 0.333, rounded down to whole filters, as in the authors'
implementation. From these follow the paper's 7,262,750 parameters for RGB slices, base_filters 32
and alpha 1.67, with the statistics of batch normalization (its UNet has 7,759,521). This network
has 7,269,294, of which 7,244,774 are trainable. Deviations:

- The normalization after a convolution has a scale too: 6,546 parameters more. It is the one that
  all networks share.
- The output is a 1 x 1 convolution with a bias, 2 parameters less: the authors' normalization
  before the sigmoid would cancel the initial bias of the output.
- Dropout is a setting, and off by default.
"""

import tensorflow as tf
import tf_keras as keras

from contract.config.network.multires_unet import MultiResUNet
from trainer.networks.filter_counts import count_filters
from trainer.networks.layers import (
    Dropout,
    conv_norm,
    conv_norm_activation,
    create_activation,
    create_normalization,
    level_dropout,
    probability_output,
)
from trainer.networks.outputs import NetworkOutputs

_SHARES = (0.167, 0.333, 0.5)


def build(network: MultiResUNet, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes."""
    features = encoder(network, slices)
    return NetworkOutputs(probability_output(decoder(network, features), num_classes))


def encoder(network: MultiResUNet, slices: tf.Tensor) -> list[tf.Tensor]:
    """The features of every level, finest first: [B, H / 2^level, W / 2^level, block_filters]."""
    features = [multires_block(network, 0, slices, "encoder_0")]
    for level in range(1, network.num_layers):
        coarser = keras.layers.MaxPool2D(name=f"encoder_{level}_pool")(features[-1])
        features.append(multires_block(network, level, coarser, f"encoder_{level}"))
    return features


def decoder(network: MultiResUNet, features: list[tf.Tensor]) -> tf.Tensor:
    """The decoder's features of the first level, from those of every level of the encoder."""
    x = features[-1]
    for level in reversed(range(network.num_layers - 1)):
        stage = f"decoder_{level}"
        upsampled = keras.layers.Conv2DTranspose(
            level_filters(network, level), 2, strides=2, padding="same", name=f"{stage}_upsample"
        )(x)
        skipped = res_path(network, level, features[level])
        x = keras.layers.Concatenate(name=f"{stage}_concatenate")([skipped, upsampled])
        x = multires_block(network, level, x, stage)
    return x


def multires_block(network: MultiResUNet, level: int, x: tf.Tensor, stage: str) -> tf.Tensor:
    """Three chained convolutions, concatenated, and a residual connection; then dropout.

    stage: the beginning of the names of its layers, such as "encoder_0".
    """
    filters = block_filters(network, level)
    shortcut = conv_norm(x, sum(filters), network.normalization, f"{stage}_shortcut", 1)
    branches = []
    for number, count in enumerate(filters, start=1):
        x = conv_norm_activation(
            x, count, network.normalization, network.activation, f"{stage}_{number}"
        )
        branches.append(x)
    x = keras.layers.Concatenate(name=f"{stage}_branches")(branches)
    x = create_normalization(network.normalization, sum(filters), f"{stage}_branches_norm")(x)
    x = add_shortcut(network, x, shortcut, sum(filters), stage)
    return Dropout(level_dropout(network.dropout_rate, level), name=f"{stage}_dropout")(x)


def res_path(network: MultiResUNet, level: int, x: tf.Tensor) -> tf.Tensor:
    """The skip connection of a level: [B, H, W, block_filters] to [B, H, W, level_filters]."""
    filters = level_filters(network, level)
    for number in range(1, network.num_layers - level):
        stage = f"decoder_{level}_path_{number}"
        shortcut = conv_norm(x, filters, network.normalization, f"{stage}_shortcut", 1)
        x = conv_norm_activation(x, filters, network.normalization, network.activation, stage)
        x = add_shortcut(network, x, shortcut, filters, f"{stage}_sum")
    return x


def add_shortcut(
    network: MultiResUNet, x: tf.Tensor, shortcut: tf.Tensor, filters: int, stage: str
) -> tf.Tensor:
    """The sum of two tensors of the same shape, its activation and its normalization."""
    x = keras.layers.Add(name=f"{stage}_add")([x, shortcut])
    x = create_activation(network.activation, f"{stage}_activation")(x)
    return create_normalization(network.normalization, filters, f"{stage}_norm")(x)


def level_filters(network: MultiResUNet, level: int) -> int:
    """The filters U of a level of the UNet: they double with each level."""
    return count_filters(network.base_filters, None, level)


def block_filters(network: MultiResUNet, level: int) -> tuple[int, ...]:
    """The filters of the three convolutions of a block; the block's output has their sum."""
    total = network.alpha * level_filters(network, level)
    return tuple(max(int(total * share), 1) for share in _SHARES)
