"""The Sharp UNet: Zunair & Ben Hamza 2021, arXiv:2107.12461.

The flexible UNet (unet.py) whose skip connections are sharpened: each channel of the encoder's
features is convolved with the fixed 3 x 3 kernel of -1 around 8, a Laplacian high-pass filter. It
has no trainable weight, so the network has as many as the UNet.
"""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from contract.config.network.sharp_unet import SharpUNet
from contract.config.network.unet import UNetSection
from trainer.networks import unet
from trainer.networks.outputs import NetworkOutputs

_KERNEL = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32)


def build(network: SharpUNet, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes."""
    return unet.build(network, slices, num_classes, sharpen)


def sharpen(network: UNetSection, level: int, features: tf.Tensor, coarser: tf.Tensor) -> tf.Tensor:
    """The features of a level, each channel sharpened."""
    return Sharpening(name=f"decoder_{level}_sharpen")(features)


class Sharpening(keras.layers.Layer):
    """A depthwise convolution with the fixed kernel, [B, H, W, C] to the same shape."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The sharpened channels."""
        kernel = tf.constant(_KERNEL[:, :, None, None], inputs.dtype)
        filters = tf.tile(kernel, tf.stack([1, 1, tf.shape(inputs)[3], 1]))
        return tf.nn.depthwise_conv2d(inputs, filters, [1, 1, 1, 1], "SAME")
