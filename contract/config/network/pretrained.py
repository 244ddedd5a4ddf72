"""What the sections of networks with an encoder of keras.applications have."""

from typing import Annotated

from pydantic import Field

from contract.config.network.network import Network


class PretrainedEncoderSection(Network):
    """The settings of a network whose encoder is a model of keras.applications."""

    encoder_weights: Annotated[str, Field(min_length=1)] | None = None
    """File with the initial weights of the encoder, in a folder or at an s3:// address: an .h5 file
    of keras.applications without classification layer (docs/trainer.md); absent: random weights.
    Every worker reads it when a new training starts; nothing is downloaded from elsewhere."""

    @property
    def encoder_weights_file(self) -> str:
        """The name of the file with ImageNet weights that Keras publishes for this encoder."""
        raise NotImplementedError


def encoder_weights(network: Network) -> str | None:
    """network.encoder_weights; None if it is absent or the network has no such setting."""
    return network.encoder_weights if isinstance(network, PretrainedEncoderSection) else None
