"""The Attention UNet: Oktay et al. 2018, arXiv:1804.03999.

The flexible UNet (unet.py) with an additive attention gate in each skip connection. For the
features x of a level and the gating signal g, the decoder's features of the next coarser level:

    alpha = sigmoid(psi(relu(W_x x + W_g g + b)))

W_x is a 2 x 2 convolution with stride 2, so that both terms have the grid of g; W_g and psi are
1 x 1 convolutions; both terms have half the filters of the level. alpha is interpolated bilinearly
to the grid of x and multiplied with it; a 1 x 1 convolution with batch normalization follows.

Deviations: normalization is network.normalization, also after the gate; the gating signal of each
level is the decoder's output itself, without a convolution of its own; deep supervision is a
setting and off by default.
"""

import tensorflow as tf
import tf_keras as keras

from contract.config.network.attention_unet import AttentionUNet
from contract.config.network.unet import UNetSection
from trainer.networks import unet
from trainer.networks.layers import create_normalization
from trainer.networks.outputs import NetworkOutputs


def build(network: AttentionUNet, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes."""
    return unet.build(network, slices, num_classes, attention_gate)


def attention_gate(
    network: UNetSection, level: int, features: tf.Tensor, coarser: tf.Tensor
) -> tf.Tensor:
    """The features of a level, weighted by what the next coarser level of the decoder found."""
    filters, stage = unet.level_filters(network, level), f"decoder_{level}_attention"
    inner = max(filters // 2, 1)
    projected = keras.layers.Conv2D(
        inner, 2, strides=2, use_bias=False, padding="same", name=f"{stage}_features"
    )(features)
    gate = keras.layers.Conv2D(inner, 1, name=f"{stage}_gate")(coarser)
    both = keras.layers.Activation("relu", name=f"{stage}_relu")(
        keras.layers.Add(name=f"{stage}_add")([projected, gate])
    )
    alpha = keras.layers.Conv2D(1, 1, activation="sigmoid", name=f"{stage}_psi")(both)
    alpha = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"{stage}_upsample")(alpha)
    gated = keras.layers.Multiply(name=f"{stage}_multiply")([features, alpha])
    out = keras.layers.Conv2D(filters, 1, name=f"{stage}_conv")(gated)
    return create_normalization(network.normalization, filters, f"{stage}_norm")(out)
