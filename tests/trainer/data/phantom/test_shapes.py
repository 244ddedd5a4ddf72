"""Shapes know where they are, and how deep a point is inside them."""

import math

import numpy as np
import pytest

from tests.phantom import sample_points
from trainer.data.phantom.shapes import Ellipse, SamplePoints, Solid, Tube, Waves

SHAPES = [
    Ellipse(2.0, -3.0, 4.0, 2.0, 0.5, (0.5, -0.2), 1.0, 3.0),
    Tube(((-5.0, 0.0, 1.0, 1.5), (0.0, 1.0, 2.0, 1.2), (5.0, 0.0, 4.0, 1.0)), 2.0),
]


@pytest.mark.parametrize("shape", SHAPES, ids=["ellipse", "tube"])
@pytest.mark.parametrize("z", [0.0, 1.0, 2.5, 3.5])
def test_no_point_of_a_shape_lies_outside_its_box(shape: Solid, z: float) -> None:
    points = sample_points(z)
    box = shape.box(z)
    assert box is not None
    left, right, front, back = box
    inside = shape.depth(points) > 0
    assert inside.any()
    assert left <= points.x[inside].min() <= points.x[inside].max() <= right
    assert front <= points.y[inside].min() <= points.y[inside].max() <= back


def test_a_shape_ends_above_and_below() -> None:
    ball = Ellipse(0.0, 0.0, 2.0, 2.0, middle=2.0, reach=1.0)
    assert ball.box(2.0) is not None
    assert ball.box(0.5) is None
    assert ball.box(3.5) is None
    assert SHAPES[1].box(9.0) is None


def test_depth_is_measured_in_centimetres() -> None:
    points = sample_points(0.0)
    depth = Ellipse(0.0, 0.0, 5.0, 5.0).depth(points)
    np.testing.assert_allclose(depth, 5.0 - np.hypot(points.x, points.y), atol=1e-4)
    depth = Tube(((0.0, 0.0, 0.0, 3.0),)).depth(points)
    np.testing.assert_allclose(depth, 3.0 - np.hypot(points.x, points.y), atol=1e-4)


def point(x: float, y: float, z: float) -> SamplePoints:
    """One point, in cm."""
    return SamplePoints(np.array([[x]], np.float32), np.array([[y]], np.float32), z)


def test_an_ellipse_drifts_and_shrinks_with_height() -> None:
    ellipse = Ellipse(1.0, 2.0, 3.0, 3.0, drift=(1.0, -2.0), middle=2.0, reach=2.0)
    assert ellipse.box(2.0) == pytest.approx((-2.0, 4.0, -1.0, 5.0))
    radius = 3.0 * math.sqrt(0.75)
    assert ellipse.box(3.0) == pytest.approx((2.0 - radius, 2.0 + radius, -radius, radius))
    assert ellipse.depth(point(2.0, 0.0, 3.0)).item() == pytest.approx(radius, rel=1e-5)


def test_an_ellipse_is_turned_by_its_tilt() -> None:
    lying, upright = (Ellipse(0.0, 0.0, 4.0, 1.0, tilt) for tilt in (0.0, math.pi / 2))
    right, below = point(3.0, 0.0, 0.0), point(0.0, 3.0, 0.0)
    assert lying.depth(right).item() > 0 > lying.depth(below).item()
    assert upright.depth(below).item() > 0 > upright.depth(right).item()


def test_a_thinner_tube_is_inside_the_tube() -> None:
    tube = Tube(((0.0, 0.0, 0.0, 3.0), (5.0, 0.0, 0.0, 0.5)))
    thinner = tube.thinner(1.0)
    assert [ball[3] for ball in thinner.balls] == [2.0, 0.0]
    assert thinner.depth(point(0.0, 0.0, 0.0)).item() == pytest.approx(2.0)
    assert thinner.depth(point(5.0, 0.0, 0.0)).item() < 0 < tube.depth(point(5.0, 0.0, 0.0)).item()


def test_a_flat_tube_is_higher_than_thick() -> None:
    balls = ((0.0, 0.0, 0.0, 1.0),)
    assert Tube(balls).box(1.5) is None
    assert Tube(balls, flat=2.0).box(1.5) is not None


def test_waves_are_a_sum_of_sines_with_unit_deviation() -> None:
    waves = Waves(((1.0, 0.0, 0.0), (0.0, 2.0, 3.0)), (0.5, 0.0))
    expected = math.sin(2.0 + 0.5) + math.sin(2.0 * 1.0 + 3.0 * 4.0)
    assert waves.sample(point(2.0, 1.0, 4.0)).item() == pytest.approx(expected, rel=1e-5)
