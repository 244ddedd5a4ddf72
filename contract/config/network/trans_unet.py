"""The settings of TransUNet."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from contract.config.network.network import Network
from contract.config.network.unet import Normalization

Filters = Annotated[int, Field(ge=1, le=2048)]


class TransUNet(Network):
    """A U-Net whose encoder is a ResNet followed by a vision transformer."""

    name: Literal["trans_unet"] = "trans_unet"
    """TransUNet (Chen 2021)."""
    base_filters: Annotated[int, Field(ge=1, le=256)] = 64
    """Filters of the first convolution; the three stages of the ResNet have 4, 8 and 16 times as
    many."""
    encoder_depths: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], ...],
        Field(strict=False, min_length=3, max_length=3),
    ] = (3, 4, 9)
    """Residual blocks of each of the three stages of the ResNet."""
    hidden_size: Annotated[int, Field(ge=1, le=4096)] = 768
    """Features of a token of the transformer."""
    num_transformer_layers: Annotated[int, Field(ge=1, le=64)] = 12
    """Layers of the transformer."""
    num_heads: Annotated[int, Field(ge=1, le=64)] = 12
    """Attention heads of each layer of the transformer."""
    mlp_dim: Annotated[int, Field(ge=1, le=16384)] = 3072
    """Hidden features of the MLP of each layer of the transformer."""
    decoder_filters: Annotated[
        tuple[Filters, ...], Field(strict=False, min_length=4, max_length=4)
    ] = (256, 128, 64, 16)
    """Filters of each of the four levels of the decoder, the coarsest first."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Dropout rate after the position embedding, after attention, and after each dense layer of an
    MLP."""
    normalization: Normalization = "group"
    """Normalization of the decoder. batch: statistics per worker; sync_batch: over all workers;
    group: per sample. The ResNet always has group normalization."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"network.hidden_size = {self.hidden_size} must be divisible by "
                f"network.num_heads = {self.num_heads}"
            )
        return self

    @property
    def size_multiple(self) -> int:
        """The transformer works on a grid of 1/16 of the sides."""
        return 16
