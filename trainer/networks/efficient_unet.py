"""A UNet with the encoder EfficientNet: Tan & Le 2019, arXiv:1905.11946.

The encoder is EfficientNet B0 to B7 of keras.applications without its classification layer. The
skip connections take the activations of the last expansion before each down-sampling, at the
strides 2, 4, 8 and 16; the last activation, at stride 32, is the input of the decoder. Level n of
the decoder, from 4 (stride 16) to 0 (stride 1, which has no skip connection):

    x = concatenate(skip(n), upsample(x));  twice: x = activation(normalization(conv 3 x 3 (x)))

The published encoders have 5.3 M (B0) to 66 M (B7) parameters, of which 1.3 M and 2.6 M are in the
classification layer; the encoder B0 has 4,007,548 here and the network 10,071,373. The paper has no
decoder; 16 to 256 filters are a common choice for such encoders.

Deviations: those of encoders.py; normalization, activation and dropout are settings of the decoder
alone.
"""

import tensorflow as tf
import tf_keras as keras

from contract.config.network.efficient_unet import EfficientUNet
from trainer.networks import encoders
from trainer.networks.filter_counts import count_filters
from trainer.networks.layers import (
    Dropout,
    conv_norm_activation,
    level_dropout,
    probability_output,
)
from trainer.networks.outputs import NetworkOutputs

SKIPS = ("block2a", "block3a", "block4a", "block6a")
"""The blocks that begin with a down-sampling, at the strides 2, 4, 8 and 16."""


def build(network: EfficientUNet, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] intensities in 0..1 to the probabilities of the classes."""
    features = [*(f"{block}_expand_activation" for block in SKIPS), "top_activation"]
    encoder = encoders.create_efficientnet(network.variant, features)
    if network.trainable_encoder_layers is not None:
        encoders.freeze_all_but_last(encoder, network.trainable_encoder_layers)
    rgb = encoders.scale_to_imagenet(encoders.to_rgb(slices))
    *skips, x = encoder(rgb)
    for level in reversed(range(len(skips) + 1)):
        x = keras.layers.UpSampling2D(2, name=f"decoder_{level}_upsample")(x)
        if level > 0:
            stage = f"decoder_{level}_concatenate"
            x = keras.layers.Concatenate(name=stage)([skips[level - 1], x])
        x = conv_block(network, level, x)
    return NetworkOutputs(probability_output(x, num_classes))


def conv_block(network: EfficientUNet, level: int, x: tf.Tensor) -> tf.Tensor:
    """Two convolutions, each with normalization and activation, then dropout."""
    stage = f"decoder_{level}"
    filters = count_filters(network.base_filters, network.max_filters, level)
    for number in (1, 2):
        x = conv_norm_activation(
            x, filters, network.normalization, network.activation, f"{stage}_{number}"
        )
    return Dropout(level_dropout(network.dropout_rate, level), name=f"{stage}_dropout")(x)
