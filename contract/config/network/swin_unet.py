"""The settings of Swin-Unet."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from contract.config.network.network import Network

_MAX_STAGES = 6
Depths = Annotated[
    tuple[Annotated[int, Field(ge=1, le=64)], ...],
    Field(strict=False, min_length=2, max_length=_MAX_STAGES),
]


class SwinUNet(Network):
    """A U-shaped network of Swin Transformer blocks, without convolutions between them."""

    name: Literal["swin_unet"] = "swin_unet"
    """Swin-Unet (Cao 2021)."""
    patch_size: Annotated[int, Field(ge=1, le=16)] = 4
    """Height and width in pixels of the patches that are the tokens of the first stage."""
    embed_dim: Annotated[int, Field(ge=1, le=1024)] = 96
    """Features of a token in the first stage; they double with each stage."""
    depths: Depths = (2, 2, 2, 2)
    """Blocks of each stage of the encoder, the deepest last; the decoder has the same. Every second
    block of a stage has shifted windows."""
    num_heads: Depths = (3, 6, 12, 24)
    """Attention heads of the blocks of each stage."""
    window_size: Annotated[int, Field(ge=2, le=64)] = 7
    """Height and width in tokens of the windows in which attention is computed. A stage whose sides
    it does not divide is padded."""
    mlp_ratio: Annotated[float, Field(ge=1.0, le=8.0)] = 4.0
    """Hidden features of the MLP of a block, relative to the features of its tokens."""
    drop_path_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Stochastic depth: the probability that training skips the attention or the MLP of the deepest
    block for a sample; it grows linearly from 0 in the first block."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout rate after the patch embedding, after attention, and after each dense layer of an
    MLP."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        stages, heads = len(self.depths), list(self.num_heads)
        if len(heads) != stages:
            raise ValueError(
                f"network.num_heads = {heads} must have one value for each of the {stages} stages "
                "of network.depths"
            )
        for stage, count in enumerate(heads):
            features = self.embed_dim * 2**stage
            if features % count:
                raise ValueError(
                    f"network.num_heads = {heads}: {count} heads do not divide the {features} "
                    f"features of stage {stage + 1} (network.embed_dim = {self.embed_dim}, doubled "
                    "with each stage)"
                )
        return self

    @property
    def size_multiple(self) -> int:
        """The patches, and each stage but the first halves the sides."""
        return self.patch_size * 2 ** (len(self.depths) - 1)

    @property
    def size_reason(self) -> str:
        """The patches and the stages."""
        return (
            f" (network.patch_size = {self.patch_size}, doubled by each further stage of "
            f"network.depths = {list(self.depths)})"
        )
