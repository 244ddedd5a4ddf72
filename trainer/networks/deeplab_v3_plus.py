"""DeepLabV3+: Chen et al. 2018, arXiv:1802.02611, with the encoder ResNet-50.

The encoder is ResNet-50 of keras.applications with output stride 16: its last stage has stride 1
and atrous convolutions of rate 2. Atrous spatial pyramid pooling of its features: five branches of
256 channels, a 1 x 1 convolution, 3 x 3 convolutions with the rates 6, 12 and 18, and the mean over
the image; a 1 x 1 convolution projects their concatenation to 256 channels. The decoder upsamples
it by 4, concatenates 48 channels that a 1 x 1 convolution computes from the low-level features at
stride 4, and applies two 3 x 3 convolutions of 256 channels and the output, which is upsampled by
4. All upsampling is bilinear.

40,373,345 parameters, of which ResNet-50 has 23.5 million. The paper has results with ResNet-101
and Xception, and no number of parameters.

Deviations: those of encoders.py; the mean over the image is spread over the grid whatever its size,
and not normalized, because one position has too few values for statistics;
the rates and the number of filters are settings; normalization, activation and dropout are settings
of the pyramid pooling and the decoder alone.
"""

import tensorflow as tf
import tf_keras as keras

from contract.config.network.deeplab_v3_plus import DeepLabV3Plus
from trainer.networks import encoders
from trainer.networks.layers import (
    Dropout,
    conv_norm_activation,
    create_activation,
    probability_output,
)
from trainer.networks.outputs import NetworkOutputs

LOW_LEVEL_FILTERS = 48
"""Filters that the decoder gets of the low-level features."""


def build(network: DeepLabV3Plus, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] intensities in 0..1 to the probabilities of the classes."""
    encoder = encoders.create_atrous_resnet50(["conv2_block3_out", "conv5_block3_out"])
    low_level, features = encoder(encoders.scale_to_caffe(encoders.to_rgb(slices)))
    x = decoder(network, low_level, pyramid_pooling(network, features))
    return NetworkOutputs(probability_output(x, num_classes, scale=4))


def pyramid_pooling(network: DeepLabV3Plus, features: tf.Tensor) -> tf.Tensor:
    """Atrous spatial pyramid pooling, [B, H, W, C] to [B, H, W, network.decoder_filters]."""
    filters = network.decoder_filters
    branches = [conv(network, features, filters, "aspp_1x1", kernel_size=1)]
    for index, rate in enumerate(network.atrous_rates, start=1):
        branches.append(conv(network, features, filters, f"aspp_atrous_{index}", rate=rate))
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name="aspp_pool_mean")(features)
    pooled = keras.layers.Conv2D(filters, 1, kernel_initializer="he_normal", name="aspp_pool_conv")(
        mean
    )
    pooled = create_activation(network.activation, "aspp_pool_activation")(pooled)
    size = tuple(features.shape[1:3])
    branches.append(keras.layers.UpSampling2D(size, name="aspp_pool_upsample")(pooled))
    x = keras.layers.Concatenate(name="aspp_concatenate")(branches)
    x = conv(network, x, filters, "aspp_projection", kernel_size=1)
    return Dropout(network.dropout_rate, name="aspp_dropout")(x)


def decoder(network: DeepLabV3Plus, low_level: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """The features at stride 4, from those at stride 4 and at stride 16."""
    skipped = conv(network, low_level, LOW_LEVEL_FILTERS, "decoder_low_level", kernel_size=1)
    x = keras.layers.UpSampling2D(4, interpolation="bilinear", name="decoder_upsample")(x)
    x = keras.layers.Concatenate(name="decoder_concatenate")([skipped, x])
    for number in (1, 2):
        x = conv(network, x, network.decoder_filters, f"decoder_{number}")
    return x


def conv(
    network: DeepLabV3Plus,
    x: tf.Tensor,
    filters: int,
    stage: str,
    kernel_size: int = 3,
    rate: int = 1,
) -> tf.Tensor:
    """A convolution with normalization and activation; rate: its atrous rate."""
    return conv_norm_activation(
        x, filters, network.normalization, network.activation, stage, kernel_size, rate
    )
