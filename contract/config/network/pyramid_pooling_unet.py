"""The settings of the pyramid-pooling residual UNet."""

from typing import Annotated, Literal

from pydantic import Field

from contract.config.network.unet import UNetSection

Pooling = Literal["average", "max"]


class PyramidPoolingUNet(UNetSection):
    """A UNet of residual blocks, with pyramid pooling of the deepest features."""

    name: Literal["pyramid_pooling_unet"] = "pyramid_pooling_unet"
    """The pyramid-pooling residual UNet (Li 2021)."""
    num_pooling_blocks: Annotated[int, Field(ge=1, le=4)] = 4
    """How many blocks pool the deepest features, to 1 x 1, 2 x 2, 3 x 3 and 6 x 6 cells."""
    pooling: Pooling = "average"
    """Whether a cell is the average or the maximum of its features."""
