"""What is done to a predicted mask after the graph of a bundle; a bundle stores it."""

from dataclasses import dataclass
from typing import Literal

MaskScope = Literal["off", "slice", "patient"]
"""Where a step looks: nowhere, in each slice by itself, or in all slices of a volume together."""


@dataclass(frozen=True)
class PostProcessing:
    """The steps after the threshold (contract.imaging.components).

    Steps with the scope "slice" come first, then those with the scope "patient"; of each scope, the
    largest component before the holes.
    """

    largest_component: MaskScope = "off"
    """Where only the largest connected component of each class is kept."""
    fill_holes: MaskScope = "off"
    """Where background that a class encloses becomes the class."""

    def has_steps(self, scope: MaskScope) -> bool:
        """Whether there is a step with this scope."""
        return scope in (self.largest_component, self.fill_holes)
