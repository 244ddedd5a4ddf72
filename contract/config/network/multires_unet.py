"""The settings of the MultiResUNet."""

from typing import Annotated, Literal

from pydantic import Field

from contract.config.network.network import LevelNetwork
from contract.config.network.unet import Activation, Normalization


class MultiResUNet(LevelNetwork):
    """A UNet of MultiRes blocks, whose skip connections are paths of residual convolutions."""

    name: Literal["multires_unet"] = "multires_unet"
    """The MultiResUNet (Ibtehaz & Rahman 2019)."""
    base_filters: Annotated[int, Field(ge=1, le=512)] = 32
    """Filters U of the first level; they double with each level."""
    alpha: Annotated[float, Field(gt=0.0, le=10.0)] = 1.67
    """The three convolutions of a MultiRes block have alpha x U filters in all: about a sixth, a
    third and half of them."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The dropout rate of a level is this times its index (0 for the first), at most 0.5."""
    normalization: Normalization = "batch"
    """batch: statistics per worker; sync_batch: over all workers; group: per sample."""
    activation: Activation = "relu"
    """Activation after each convolution and each addition."""
