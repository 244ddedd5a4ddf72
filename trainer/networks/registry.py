"""The networks by name. A network is built the same way: build(network, num_classes)."""

import tf_keras as keras

from contract.config import Network
from trainer.networks import unet

BUILDERS = {"unet": unet.build}


def build_network(network: Network, num_classes: int) -> keras.Model:
    """Build the network of the settings.

    Args:
        network: The settings [network].
        num_classes: The number of classes, without the background.

    Returns:
        A Keras model that maps intensities [B, S, S, C] in 0..1 to probabilities
        [B, S, S, num_classes].
    """
    return BUILDERS[network.name](network, num_classes)
