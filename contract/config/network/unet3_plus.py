"""The settings of UNet 3+."""

from typing import Annotated, Literal

from pydantic import Field

from contract.config.network.unet import UNetSection


class UNet3Plus(UNetSection):
    """A UNet whose decoder has full-scale skip connections."""

    name: Literal["unet3_plus"] = "unet3_plus"
    """UNet 3+ (Huang 2020)."""
    max_filters: Annotated[int, Field(ge=1)] | None = None
    """Cap on the filters of a level of the encoder; absent: none."""
    skip_filters: Annotated[int, Field(ge=1, le=512)] | None = None
    """Filters of the convolution of each of the num_layers scales that a level of the decoder
    concatenates; it has num_layers times as many. Absent: base_filters."""
    deep_supervision: bool = False
    """Whether the deepest level and the coarser levels of the decoder are trained on the masks too,
    all with equal weights."""
    classification_guided: bool = False
    """Whether a classifier of the deepest level is trained on which classes a slice contains
    (classification-guided module). In validation and inference, a class that it does not find has
    probability 0 in the whole slice or window."""

    @property
    def supervises_deepest_level(self) -> bool:
        """UNet 3+ does."""
        return True
