"""The networks by name. A network is built the same way: build(network, num_classes,
input_channels)."""

import tf_keras as keras

from contract.config import Network
from trainer.networks import unet

BUILDERS = {"unet": unet.build}


def build_network(network: Network, num_classes: int, input_channels: int) -> keras.Model:
    """Build the network of the settings.

    Args:
        network: The settings [network].
        num_classes: The number of classes, without the background.
        input_channels: C, the channels of a slice and of its neighbours (Config.input_channels).

    Returns:
        A Keras model that maps normalized slices [B, H, W, C] to probabilities
        [B, H, W, num_classes].
    """
    return BUILDERS[network.name](network, num_classes, input_channels)
