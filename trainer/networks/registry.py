"""The networks, one file each, all built the same way: build(network) -> a Keras model."""

import tf_keras as keras

from contract.config import Network
from trainer.networks import unet

BUILDERS = {"unet": unet.build}


def build_network(network: Network) -> keras.Model:
    """The network the settings name: [B, S, S, C] in 0..1 to [B, S, S, 1] probabilities."""
    return BUILDERS[network.name](network)
