"""The section [predict]."""

from typing import Annotated

from pydantic import Field, field_validator

from contract.config.network.network import ImageSize, image_sides
from contract.config.section import Section


class Predict(Section):
    """How a bundle turns a slice into a mask."""

    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """A pixel is foreground where its probability is greater than this; stored in the bundle."""
    sliding_window: bool = False
    """Cut slices larger than window_size into overlapping windows of that size instead of
    resizing them; the slices of the train and valid splits must have exactly that size."""
    window_size: ImageSize | None = None
    """Height and width of a window, in pixels of the slice: one number for both, or
    [height, width]; absent: network.image_size, to which windows of another size are resized."""
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """Overlap of neighbouring windows as a fraction of their height and of their width: 0.0, 0.5
    or 0.75. With sliding_window, both must be divisible by 1 / (1 - overlap)."""
    intersect_resized: bool = False
    """With sliding_window, a pixel is foreground only if it is also in the mask of the resized
    slice: its probability is the lower of the two. For one class."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Slices (or windows) given to the network at once."""

    @field_validator("overlap")
    @classmethod
    def _check_overlap(cls, overlap: float) -> float:
        if overlap not in (0.0, 0.5, 0.75):
            raise ValueError(f"predict.overlap = {overlap} must be 0.0, 0.5 or 0.75")
        return overlap

    def window_shape(self, image_shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a window in pixels; image_shape: those of network.image_size."""
        return image_shape if self.window_size is None else image_sides(self.window_size)

    @property
    def windows_per_side(self) -> int:
        """How many window strides fit into the side of one window: 1, 2 or 4."""
        return round(1 / (1 - self.overlap))
