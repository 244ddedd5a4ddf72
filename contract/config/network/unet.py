"""The settings of the flexible UNet and of the networks that change only its skip connections."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from contract.config.network.network import LevelNetwork

Normalization = Literal["none", "batch", "sync_batch", "group"]
Activation = Literal["relu", "leaky_relu", "elu", "mish", "silu"]


class UNetSection(LevelNetwork):
    """The settings of a UNet whose levels follow the rules of the flexible UNet."""

    base_filters: Annotated[int, Field(ge=1, le=512)] = 16
    """Filters of the first level; they double with each level."""
    max_filters: Annotated[int, Field(ge=1)] | None = None
    """Cap on the filters of a level; absent: none."""
    base_kernels: Annotated[int, Field(ge=1, le=31)] = 3
    """Kernel size of the first level; it shrinks by 2 with each level down to 3. Odd."""
    dilation: Annotated[int, Field(ge=1, le=16)] = 1
    """Dilation of the first level; it shrinks by 1 with each level down to 1."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """The dropout rate of a level is this times its index (0 for the first), at most 0.5."""
    normalization: Normalization = "group"
    """batch: statistics per worker; sync_batch: over all workers; group: per sample."""
    activation: Activation = "relu"
    """Activation after each convolution."""
    deep_supervision: bool = False
    """Whether the coarser levels of the decoder, but the deepest of three or more, are trained on
    the masks too, each with half the weight of the level above it. Needs three levels."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.base_kernels % 2 == 0:
            raise ValueError(f"network.base_kernels = {self.base_kernels} must be odd")
        if self.deep_supervision and self.num_layers < 3 and not self.supervises_deepest_level:
            raise ValueError(
                "network.deep_supervision needs a coarser level of the decoder: set "
                f"network.num_layers to 3 or more, not {self.num_layers}"
            )
        return self

    @property
    def supervises_deepest_level(self) -> bool:
        """Whether deep supervision has an output of the deepest level too."""
        return False


class UNet(UNetSection):
    """The network that maps a slice to the probability of each class."""

    name: Literal["unet"] = "unet"
    """The flexible UNet (Ronneberger 2015)."""
