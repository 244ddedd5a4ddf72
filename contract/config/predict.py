"""The section [predict]."""

from typing import Annotated

from pydantic import Field, field_validator

from contract.config.section import Section


class Predict(Section):
    """How a bundle turns a slice into a mask."""

    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """A pixel is foreground where its probability is greater than this; stored in the bundle."""
    sliding_window: bool = False
    """Cut slices larger than network.image_size into overlapping windows of that size instead of
    resizing them; the slices of the train and valid splits must have exactly that size."""
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """Overlap of neighbouring windows as a fraction of their height and of their width: 0.0, 0.5
    or 0.75. With sliding_window, both must be divisible by 1 / (1 - overlap)."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Slices (or windows) given to the network at once."""

    @field_validator("overlap")
    @classmethod
    def _check_overlap(cls, overlap: float) -> float:
        if overlap not in (0.0, 0.5, 0.75):
            raise ValueError(f"predict.overlap = {overlap} must be 0.0, 0.5 or 0.75")
        return overlap

    @property
    def windows_per_side(self) -> int:
        """How many window strides fit into the side of one window: 1, 2 or 4."""
        return round(1 / (1 - self.overlap))
