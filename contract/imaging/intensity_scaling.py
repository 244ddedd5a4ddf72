"""How raw intensities become the input of a network; a bundle stores it."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class IntensityScaling:
    """Raw intensities are clipped to low..high; the mean is subtracted, then divided by std.

    All four are raw intensities; low < high, and std > 0.
    """

    low: float
    high: float
    mean: float
    std: float

    @classmethod
    def from_window(cls, low: float, high: float) -> Self:
        """The scaling that maps low..high to 0..1."""
        return cls(low, high, mean=low, std=high - low)

    @property
    def window(self) -> tuple[float, float]:
        """The raw intensities that are drawn black and white."""
        return self.low, self.high
