"""The anatomy of a synthetic patient: one abdomen as a stack of shapes.

Lengths are centimeters, intensities Hounsfield units (HU). A slice is oriented as on a CT screen.
All random numbers come from one generator in a fixed order, so that a seed determines a patient.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from trainer.data.phantom.shapes import (
    HEIGHT,
    Ellipse,
    Solid,
    Tube,
    Waves,
)

AIR, _GAS, _FAT, _SKIN, _MUSCLE, _BONE, _MARROW = -1000.0, -900.0, -95.0, 20.0, 64.0, 500.0, 190.0
_VESSEL = 150.0


@dataclass(frozen=True)
class Layer:
    """A shape and its intensity in HU; grain: HU by which its inside is mottled."""

    shape: Solid
    hu: float
    grain: float = 0.0


@dataclass(frozen=True)
class Patient:
    """All that decides an invented patient's slices, noise apart.

    Painted in this order: wall; viscera, as far as they lie in the cavity; spine; the organ (the
    pancreas), whose surface and inside the lobules shape. The warps bend all of it alike.
    noise: its standard deviation in HU.
    """

    wall: tuple[Layer, ...]
    cavity: Ellipse
    viscera: tuple[Layer, ...]
    spine: tuple[Layer, ...]
    organ: Layer
    warps: tuple[Waves, Waves]
    grain: Waves
    lobules: Waves
    noise: float


def create_anatomy(rng: Generator) -> Patient:
    """A patient from a generator; the same state gives the same patient."""
    wall, cavity = _wall(rng)
    organ, vein = _pancreas(rng)
    viscera = (
        *_liver(rng),
        *_stomach(rng),
        *_spleen(rng),
        *_kidneys(rng),
        *_bowel(rng, organ.hu),
        *_colon(rng),
        *_vessels(rng, vein),
    )
    return Patient(
        wall=tuple(wall),
        cavity=cavity,
        viscera=viscera,
        spine=tuple(_spine(rng)),
        organ=organ,
        warps=(_waves(rng, 4, 14.0, 26.0), _waves(rng, 4, 14.0, 26.0)),
        grain=_waves(rng, 12, 0.8, 1.8),
        lobules=_waves(rng, 16, 1.0, 2.0),
        noise=float(rng.uniform(9.0, 14.0)),
    )


def _waves(rng: Generator, count: int, shortest: float, longest: float) -> Waves:
    """A random field of wavelengths in cm, changing half as fast with height as in a slice."""
    length = rng.uniform(shortest, longest, count)
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    rise = rng.uniform(-0.5, 0.5, count)
    vectors = np.stack([np.cos(angle), np.sin(angle), rise], axis=1) * (2 * np.pi / length)[:, None]
    phases = rng.uniform(0.0, 2.0 * np.pi, count)
    return Waves(tuple((x, y, z) for x, y, z in vectors.tolist()), tuple(phases.tolist()))


def _tube(points: NDArray, radii: NDArray, flat: float) -> Tube:
    """A tube from points [n, 3] and radii [n]."""
    balls = zip(points.tolist(), radii.tolist(), strict=True)
    return Tube(tuple((x, y, z, radius) for (x, y, z), radius in balls), flat)


def _curve(knots: NDArray, count: int) -> NDArray:
    """[count, d] points of a smooth curve through the knots [k, d]."""
    return _spline(len(knots), count) @ knots


@cache
def _spline(knots: int, count: int) -> NDArray:
    """[count, knots] how much each knot weighs at each point of a cubic spline.

    Cached, because solving for each of the hundreds of loops took most of a patient's time.
    """
    spline = CubicSpline(np.linspace(0.0, 1.0, knots), np.eye(knots))
    return spline(np.linspace(0.0, 1.0, count))


def _around(rng: Generator, value: float, spread: float) -> float:
    """value ± spread, uniformly."""
    return float(value + rng.uniform(-spread, spread))


# -- the parts of the body ---------------------------------------------------------------------


def _wall(rng: Generator) -> tuple[list[Layer], Ellipse]:
    """Skin, fat rim, muscle wall with ribs, the fat of the cavity; and the cavity."""
    a, b = _around(rng, 15.2, 0.8), _around(rng, 11.2, 0.8)
    rim, muscle = _around(rng, 1.4, 0.6), _around(rng, 0.95, 0.2)
    outer, inner = (a - rim, b - rim * 0.8), (a - rim - muscle, b - rim * 0.8 - muscle)
    cavity = Ellipse(0, 0, *inner)
    layers = [
        Layer(Ellipse(0, 0, a, b), _SKIN),
        Layer(Ellipse(0, 0, a - 0.25, b - 0.25), _FAT, 5.0),
        Layer(Ellipse(0, 0, *outer), _MUSCLE, 4.0),
        Layer(cavity, _FAT, 10.0),
    ]
    middle = (outer[0] + inner[0]) / 2, (outer[1] + inner[1]) / 2
    ribs = [rib for side in (-1, 1) for rib in _ribs(rng, side, *middle)]
    return layers + ribs, cavity


def _ribs(rng: Generator, side: int, half_width: float, half_depth: float) -> list[Layer]:
    """Cuts through the ribs of one side: bone about marrow, wandering forwards with height."""
    layers = []
    for angle in (np.arange(-0.35, 1.15, 0.42) + rng.uniform(-0.1, 0.1)).tolist():
        cos, sin = math.cos(angle), math.sin(angle)
        x, y, drift = side * half_width * cos, half_depth * sin, (side * 0.5 * sin, -0.5 * cos)
        turn = math.atan2(half_depth * cos, -side * half_width * sin)
        long = _around(rng, 1.0, 0.2)
        layers.append(Layer(Ellipse(x, y, long, 0.42, turn, drift), _BONE))
        layers.append(Layer(Ellipse(x, y, long - 0.3, 0.2, turn, drift), _MARROW))
    return layers


def _spine(rng: Generator) -> list[Layer]:
    """Vertebra with canal and processes, the muscles of the back, and the psoas."""
    y = _around(rng, 5.4, 0.3)
    muscles = [
        Layer(Ellipse(side * _around(rng, 3.4, 0.3), y + 2.9, 2.7, 1.75, side * 0.25), _MUSCLE, 7.0)
        for side in (-1, 1)
    ]
    psoas = [
        Layer(Ellipse(side * 2.9, y + 0.3, 1.0, 1.4, drift=(side * 0.12, 0.0)), _MUSCLE, 4.0)
        for side in (-1, 1)
    ]
    arms = [Layer(Ellipse(side * 2.0, y + 1.9, 1.7, 0.42, side * 0.35), _BONE) for side in (-1, 1)]
    return [
        *muscles,
        *psoas,
        *arms,
        Layer(Ellipse(0, y + 3.4, 0.42, 1.7), _BONE),
        Layer(Ellipse(0, y + 2.0, 1.45, 1.2), _BONE),
        Layer(Ellipse(0, y, 2.2, 1.75), _BONE),
        Layer(Ellipse(0, y, 1.9, 1.45), _MARROW, 25.0),
        Layer(Ellipse(0, y + 2.0, 0.95, 0.8), 35.0),
    ]


def _liver(rng: Generator) -> list[Layer]:
    """Right and left lobe, their vessels, and a gall bladder."""
    hu = _around(rng, 88.0, 13.0)
    x, y = _around(rng, -8.4, 0.6), _around(rng, -1.0, 0.6)
    lobes = [
        Ellipse(x, y, 5.3, 6.4, 0.25, (0.0, 0.35), -0.5, _around(rng, 8.0, 1.2)),
        Ellipse(x + 3.6, y - 4.2, 5.4, 2.6, -0.15, (-0.5, 0.1), -1.0, _around(rng, 6.0, 1.0)),
    ]
    vessels = [
        Ellipse(
            x + rng.uniform(-2.5, 3.0),
            y + rng.uniform(-3.5, 3.0),
            rng.uniform(0.25, 0.8),
            0.28,
            rng.uniform(0, np.pi),
            (rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6)),
            rng.uniform(0, HEIGHT),
            rng.uniform(1.5, 3.0),
        )
        for _ in range(7)
    ]
    gall = Ellipse(x + 4.1, y + 1.2, 1.2, 1.7, 0.5, (0.2, -0.2), 4.0, _around(rng, 2.6, 0.8))
    return [
        *(Layer(lobe, hu, 4.0) for lobe in lobes),
        *(Layer(vessel, hu + 38.0) for vessel in vessels),
        Layer(gall, 60.0),
        Layer(Ellipse(gall.x, gall.y, 1.0, 1.5, 0.5, gall.drift, 4.0, gall.reach), 8.0),
    ]


def _stomach(rng: Generator) -> list[Layer]:
    """Wall, content, and a bubble of gas in front of it."""
    x, y = _around(rng, 6.3, 0.8), _around(rng, -5.4, 0.4)
    a, b, reach = _around(rng, 4.4, 0.7), _around(rng, 2.3, 0.4), _around(rng, 5.5, 1.0)
    content = _around(rng, 30.0, 25.0)

    def bag(less: float) -> Ellipse:
        return Ellipse(x, y, a - less, b - less, 0.3, (-0.5, 0.2), 0.5, reach)

    gas = Ellipse(x - 0.3, y - b * 0.42, a * 0.5, b * 0.3, 0.25, (-0.5, 0.2), 0.5, reach * 0.8)
    return [Layer(bag(0.0), 85.0), Layer(bag(0.42), content, 6.0), Layer(gas, _GAS)]


def _spleen(rng: Generator) -> list[Layer]:
    x, y = _around(rng, 10.9, 0.4), _around(rng, 2.2, 0.8)
    return [
        Layer(
            Ellipse(x, y, 2.1, 4.0, -0.3, (0.0, 0.3), -0.5, _around(rng, 5.0, 1.2)),
            _around(rng, 92.0, 14.0),
            4.0,
        )
    ]


def _kidneys(rng: Generator) -> list[Layer]:
    """Bright cortex, darker pyramids, fat in the middle."""
    layers = []
    for side, height in ((-1, 3.4), (1, 2.4)):
        x, y = side * _around(rng, 6.3, 0.4), _around(rng, 4.9, 0.4)
        middle, tilt = _around(rng, height, 0.5), side * _around(rng, 0.5, 0.2)
        hu = _around(rng, 165.0, 15.0)
        layers += [
            Layer(Ellipse(x, y, 2.2, 2.8, tilt, (side * 0.15, 0.0), middle, 5.0), hu),
            Layer(Ellipse(x, y, 1.45, 2.0, tilt, (side * 0.15, 0.0), middle, 4.3), hu - 45.0, 22.0),
            Layer(Ellipse(x - side * 0.9, y, 1.2, 0.9, tilt, (0, 0), middle, 2.8), _FAT),
        ]
    return layers


def _colon(rng: Generator) -> list[Layer]:
    """Its falling part, low at the left side: wall, mottled content, some gas."""
    x, y = _around(rng, 10.0, 0.5), _around(rng, 2.0, 0.8)
    radius, reach = _around(rng, 1.8, 0.3), _around(rng, 3.2, 1.0)

    def pipe(less: float, up: float = 0.0) -> Ellipse:
        a = radius - less
        return Ellipse(x, y - up, a, a * 0.9, middle=HEIGHT + 0.5, reach=reach)

    return [
        Layer(pipe(0.0), 78.0),
        Layer(pipe(0.3), 10.0, 55.0),
        Layer(pipe(1.2, up=0.5), _GAS),
    ]


def _bowel(rng: Generator, organ: float) -> list[Layer]:
    """Loops in front and at the sides, most of them about as bright as the organ."""
    layers: list[Layer] = []
    for _ in range(int(rng.integers(15, 21))):
        x, y = rng.uniform(-5.0, 10.0), rng.uniform(-8.0, -3.0)
        layers += _loop(rng, x, y, organ)
    for x, y in ((9.5, -1.5), (10.5, 0.5), (-6.6, 0.8), (-7.5, -3.5)):
        layers += _loop(rng, _around(rng, x, 0.8), _around(rng, y, 0.8), organ)
    return layers


def _loop(rng: Generator, x: float, y: float, organ: float) -> list[Layer]:
    """A short bent tube: wall and content."""
    angle, bend = rng.uniform(0.0, 2.0 * np.pi), rng.normal(0.0, 0.9)
    half = rng.uniform(0.4, 2.4)
    along = np.array([np.cos(angle), np.sin(angle) * 0.7, rng.uniform(-0.5, 0.5)])
    across = np.array([-np.sin(angle), np.cos(angle), 0.0])
    middle = np.array([x, y, rng.uniform(-1.0, HEIGHT + 1.0)])
    ends = middle - half * along, middle + half * along
    points = _curve(np.array([ends[0], middle + bend * across, ends[1]]), 14)
    radius = rng.uniform(0.8, 1.35)
    flat = rng.uniform(1.0, 2.2)
    alike = rng.random() < 0.6
    hu = organ + rng.normal(0.0, 8.0) if alike else rng.uniform(-20.0, 60.0)
    tube = _tube(points, np.full(14, radius), flat)
    return [Layer(tube, max(hu, 80.0) + 8.0), Layer(tube.thinner(0.3), hu, 6.0)]


def _pancreas(rng: Generator) -> tuple[Layer, Tube]:
    """A tapering, bent tube from the head (right of the spine, low) to the tail (left, high).

    Also the splenic vein, which runs along its back.
    """
    knots = np.array(
        [
            [-4.3, 2.3, 4.3],
            [-3.5, 0.2, 3.7],
            [-1.0, -1.4, 3.0],
            [2.0, -1.4, 2.4],
            [5.2, -0.6, 1.8],
            [8.0, 0.9, 1.2],
        ]
    )
    knots[:, :2] += rng.normal(0.0, 0.45, 2) + rng.normal(0.0, 0.42, (len(knots), 2))
    knots[:, 2] += rng.normal(0.0, 0.2, len(knots))
    turn = rng.normal(0.0, 0.09)
    knots[:, 1] += knots[:, 0] * np.sin(turn)
    points = _curve(knots, 44)
    radii = _curve(np.array([[1.5], [1.9], [1.3], [1.4], [1.4], [0.95]]), 44)[:, 0]
    radii *= rng.uniform(0.9, 1.15) * (1.0 + 0.06 * np.sin(np.linspace(0, rng.uniform(8, 16), 44)))
    tube = _tube(points, radii, _around(rng, 2.3, 0.3))
    vein = Tube(tuple((x, y + 1.25, z, 0.42) for x, y, z, _ in tube.balls[14:40]), 1.6)
    return Layer(tube, _around(rng, 80.0, 12.0), 16.0), vein


def _vessels(rng: Generator, vein: Tube) -> list[Layer]:
    """Aorta, caval vein, the two mesenteric vessels, and the splenic vein."""
    hu = _VESSEL + rng.uniform(-15.0, 25.0)
    return [
        Layer(Ellipse(_around(rng, 0.9, 0.3), 2.6, 1.0, 1.0), hu),
        Layer(Ellipse(_around(rng, -2.2, 0.3), 3.0, 1.3, _around(rng, 0.9, 0.15), -0.15), hu - 25),
        Layer(Ellipse(_around(rng, 0.9, 0.2), 0.75, 0.38, 0.38), hu),
        Layer(Ellipse(_around(rng, -0.9, 0.25), 0.8, 0.6, 0.55), hu - 12.0),
        Layer(vein, hu - 12.0),
    ]
