"""The shapes of the phantom: ellipses, tubes and smooth noise fields.

Lengths are centimeters. x grows to the right of the image (the patient's left), y towards the back,
z from the uppermost slice to the lowest.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# float32 throughout; NumPy types its products with Python numbers more widely.
Field = NDArray[np.floating]

# Width of the image, and distance from its uppermost to its lowest slice.
VIEW = 34.0
HEIGHT = 5.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SamplePoints:
    """Points of one slice, where depths are asked for: x, y [H, W]; z the height of the slice."""

    x: Field
    y: Field
    z: float


class Solid(Protocol):
    """A solid body of the phantom."""

    def box(self, z: float) -> Box | None:
        """Left, right, front and back of the cut at a height; None where it is not cut."""
        ...

    def depth(self, points: SamplePoints) -> Field:
        """[H, W] about how deep a point lies below the surface, in cm; negative outside.

        Only valid at a height inside the box.
        """
        ...


@dataclass(frozen=True)
class Ellipse:
    """An ellipse that may lean, drift with height, and end above and below.

    x, y: its middle at height `middle`; a, b: half axes there; tilt: turn in radians; drift: cm of
    (x, y) for each cm of height; reach: half its height (None: it passes through all slices).
    """

    x: float
    y: float
    a: float
    b: float
    tilt: float = 0.0
    drift: tuple[float, float] = (0.0, 0.0)
    middle: float = HEIGHT / 2
    reach: float | None = None

    def box(self, z: float) -> Box | None:
        scale = self._scale(z)
        if scale < 0.05:
            return None
        (x, y), longest = self._center(z), scale * max(self.a, self.b)
        return x - longest, x + longest, y - longest, y + longest

    def depth(self, points: SamplePoints) -> Field:
        scale = self._scale(points.z)
        center = self._center(points.z)
        x, y = points.x - center[0], points.y - center[1]
        # math, not numpy: numpy's scalars would turn float32 into float64, at twice the time.
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        a, b = self.a * scale, self.b * scale
        radius = np.sqrt(((cos * x + sin * y) / a) ** 2 + ((cos * y - sin * x) / b) ** 2)
        return (1.0 - radius) * min(a, b)

    def _center(self, z: float) -> tuple[float, float]:
        rise = z - self.middle
        return self.x + self.drift[0] * rise, self.y + self.drift[1] * rise

    def _scale(self, z: float) -> float:
        """Share of the half axes that is left at a height."""
        if self.reach is None:
            return 1.0
        return math.sqrt(max(0.0, 1.0 - ((z - self.middle) / self.reach) ** 2))


@dataclass(frozen=True)
class Tube:
    """A bent tube: a row of balls (x, y, z, radius) along its middle.

    flat: how many times higher it is than thick.
    """

    balls: tuple[tuple[float, float, float, float], ...]
    flat: float = 1.0

    def box(self, z: float) -> Box | None:
        discs = self._discs(z)
        if not discs:
            return None
        return (
            min(x - r for x, _, r in discs),
            max(x + r for x, _, r in discs),
            min(y - r for _, y, r in discs),
            max(y + r for _, y, r in discs),
        )

    def depth(self, points: SamplePoints) -> Field:
        depth = np.full_like(points.x, -VIEW)
        for x, y, radius in self._discs(points.z):
            distance = np.sqrt((points.x - x) ** 2 + (points.y - y) ** 2)
            np.maximum(depth, radius - distance, out=depth)
        return depth

    def thinner(self, by: float) -> "Tube":
        """The same tube with radii smaller by some cm."""
        return Tube(tuple((x, y, z, max(r - by, 0.0)) for x, y, z, r in self.balls), self.flat)

    def _discs(self, z: float) -> list[tuple[float, float, float]]:
        """The cut at a height: x, y and radius."""
        squares = [r**2 - ((ball_z - z) / self.flat) ** 2 for _, _, ball_z, r in self.balls]
        return [
            (x, y, math.sqrt(square))
            for (x, y, _, _), square in zip(self.balls, squares, strict=True)
            if square > 0.0
        ]


@dataclass(frozen=True)
class Waves:
    """A smooth random field with standard deviation 1: the sum of plane waves.

    vectors: radians for each cm along x, y, z; phases: one for each wave.
    """

    vectors: tuple[tuple[float, float, float], ...]
    phases: tuple[float, ...]

    def sample(self, points: SamplePoints) -> Field:
        total = np.zeros_like(points.x)
        for (kx, ky, kz), phase in zip(self.vectors, self.phases, strict=True):
            total += np.sin(kx * points.x + ky * points.y + (kz * points.z + phase))
        return total * math.sqrt(2.0 / len(self.phases))
