"""The networks by name. A network is built the same way: build(network) -> a Keras model."""

import tf_keras as keras

from contract.config import Network
from trainer.networks import unet

BUILDERS = {"unet": unet.build}


def build_network(network: Network) -> keras.Model:
    """Build the network of the settings.

    Args:
        network: The settings [network].

    Returns:
        A Keras model that maps normalized slices [B, H, W, C] to probabilities [B, H, W, 1].
    """
    return BUILDERS[network.name](network)
