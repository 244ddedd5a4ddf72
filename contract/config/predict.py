"""The section [predict]."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from contract.config.network.network import ImageSize, image_sides
from contract.config.section import ClassName, Section
from contract.imaging.post_processing import MaskScope, PostProcessing

Threshold = Annotated[float, Field(gt=0.0, lt=1.0)]
Zoom = Annotated[float, Field(ge=0.5, le=2.0)]
Shift = Annotated[float, Field(gt=0.0, le=0.25)]
Flip = Literal["horizontal", "vertical"]


class Predict(Section):
    """How a bundle turns a slice into a mask."""

    threshold: Threshold = 0.5
    """A pixel is foreground where its probability is greater than this; stored in the bundle."""
    class_thresholds: Mapping[ClassName, Threshold] = {}
    """With several classes, by class: it wins against the background where its share of the sum of
    both probabilities is greater than this (docs/inference.md); a class without one has 0.5."""
    zooms: Annotated[tuple[Zoom, ...], Field(strict=False)] = (1.0,)
    """Test-time augmentation: the probability is the mean over the slice at these zooms about its
    center, where each of them shows the pixel; one must be 1.0, the slice as it is."""
    shifts: Annotated[tuple[Shift, ...], Field(strict=False)] = ()
    """Test-time augmentation: four more copies of the slice for each of these fractions, shifted by
    it along the height and along the width, in both directions."""
    flips: Annotated[tuple[Flip, ...], Field(strict=False)] = ()
    """Test-time augmentation: a mirrored copy of the slice for each of "horizontal" and "vertical";
    only if the training flips slices in the same direction (data.augment)."""
    largest_component: MaskScope = "off"
    """Keep only the largest connected component of each class: in each "slice", in the volume of a
    "patient", or "off" (docs/inference.md says where "patient" has an effect)."""
    fill_holes: MaskScope = "off"
    """Fill background that a class encloses: in each "slice", in the volume of a "patient", or
    "off"."""
    tune_on_validation: bool = False
    """At the end of a training, choose zooms, shifts, flips, thresholds, largest_component and
    fill_holes by the Dice of the validation patients (docs/trainer.md)."""
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

    @field_validator("zooms")
    @classmethod
    def _check_zooms(cls, zooms: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in zooms:
            raise ValueError(
                f"predict.zooms = {list(zooms)} must contain 1.0: larger zooms do not show the "
                "border of a slice"
            )
        return zooms

    @field_validator("zooms", "shifts", "flips")
    @classmethod
    def _check_unique(cls, values: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"predict.{info.field_name} = {list(values)} has a value twice")
        return values

    @property
    def post_processing(self) -> PostProcessing:
        """What is done to a mask after the graph."""
        return PostProcessing(self.largest_component, self.fill_holes)

    def thresholds(self, classes: Sequence[str]) -> tuple[float, ...]:
        """The threshold of each class; classes: their names."""
        if len(classes) == 1:
            return (self.threshold,)
        return tuple(self.class_threshold(name) for name in classes)

    def class_threshold(self, name: str) -> float:
        """The threshold of one of several classes."""
        return self.class_thresholds.get(name, 0.5)

    def window_shape(self, image_shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a window in pixels; image_shape: those of network.image_size."""
        return image_shape if self.window_size is None else image_sides(self.window_size)

    @property
    def windows_per_side(self) -> int:
        """How many window strides fit into the side of one window: 1, 2 or 4."""
        return round(1 / (1 - self.overlap))
