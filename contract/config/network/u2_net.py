"""The settings of U2-Net."""

from typing import Annotated, Literal

from pydantic import Field

from contract.config.network.network import Network
from contract.config.network.unet import Activation, Normalization


class U2Net(Network):
    """A UNet of six levels, each of which is a UNet with a residual connection."""

    name: Literal["u2_net"] = "u2_net"
    """U2-Net (Qin 2020)."""
    variant: Literal["full", "small"] = "full"
    """full: filters double with each level, up to 8 times base_filters (U2-Net, 44.0 M parameters
    with the default base_filters); small: every level has base_filters (U2-Net-p, 1.1 M)."""
    base_filters: Annotated[int, Field(ge=1, le=512)] = 64
    """Filters of the first level, to which all other filters are proportional."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The dropout rate of a level is this times its index (0 for the first), at most 0.5."""
    normalization: Normalization = "group"
    """batch: statistics per worker; sync_batch: over all workers; group: per sample."""
    activation: Activation = "relu"
    """Activation after each convolution."""
    deep_supervision: bool = True
    """Whether the outputs of the six levels, which the network fuses, are trained on the masks too,
    each with the weight of the fused output."""

    @property
    def size_multiple(self) -> int:
        """Each of the six levels but the first halves the sides, and so do their blocks."""
        return 32

    @property
    def size_reason(self) -> str:
        """The levels."""
        return " (2^5 for the six levels of u2_net)"
