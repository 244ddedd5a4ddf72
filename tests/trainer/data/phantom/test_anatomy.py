"""Shapes know where they are; a seed names a patient."""

import numpy as np
import pytest

from trainer.data.phantom.anatomy import Patient, create_anatomy
from trainer.data.phantom.shapes import HEIGHT, VIEW, Ellipse, SamplePoints, Shape, Tube


def sample_points(z: float, side: int = 120) -> SamplePoints:
    axis = ((np.arange(side) + 0.5) * (VIEW / side) - VIEW / 2).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return SamplePoints(x, y, z)


SHAPES = [
    Ellipse(2.0, -3.0, 4.0, 2.0, 0.5, (0.5, -0.2), 1.0, 3.0),
    Tube(((-5.0, 0.0, 1.0, 1.5), (0.0, 1.0, 2.0, 1.2), (5.0, 0.0, 4.0, 1.0)), 2.0),
]


@pytest.mark.parametrize("shape", SHAPES, ids=["ellipse", "tube"])
@pytest.mark.parametrize("z", [0.0, 1.0, 2.5, 3.5])
def test_no_point_of_a_shape_lies_outside_its_box(shape: Shape, z: float) -> None:
    at = sample_points(z)
    box = shape.box(z)
    assert box is not None
    left, right, front, back = box
    inside = shape.depth(at) > 0
    assert inside.any()
    assert left <= at.x[inside].min() <= at.x[inside].max() <= right
    assert front <= at.y[inside].min() <= at.y[inside].max() <= back


def test_a_shape_ends_above_and_below() -> None:
    ball = Ellipse(0.0, 0.0, 2.0, 2.0, middle=2.0, reach=1.0)
    assert ball.box(2.0) is not None
    assert ball.box(0.5) is None
    assert ball.box(3.5) is None
    assert SHAPES[1].box(9.0) is None


def test_depth_is_measured_in_centimetres() -> None:
    at = sample_points(0.0)
    depth = Ellipse(0.0, 0.0, 5.0, 5.0).depth(at)
    np.testing.assert_allclose(depth, 5.0 - np.hypot(at.x, at.y), atol=1e-4)
    depth = Tube(((0.0, 0.0, 0.0, 3.0),)).depth(at)
    np.testing.assert_allclose(depth, 3.0 - np.hypot(at.x, at.y), atol=1e-4)


def test_all_is_drawn_in_float32() -> None:
    patient, at = create_anatomy(np.random.default_rng(0)), sample_points(HEIGHT / 2)
    layers = (*patient.wall, *patient.viscera, *patient.spine, patient.organ)
    cut = [layer.shape for layer in layers if layer.shape.box(at.z)]
    assert {shape.depth(at).dtype for shape in cut} == {np.dtype(np.float32)}
    assert patient.lobules.sample(at).dtype == np.float32


def test_random_fields_have_unit_deviation() -> None:
    fields = [invented(seed).grain.sample(sample_points(1.0)) for seed in range(4)]
    assert 0.8 < np.std(fields) < 1.2


def test_a_seed_names_a_patient() -> None:
    assert invented(3) == invented(3)
    assert invented(3) != invented(4)


def test_the_organ_is_cut_by_every_slice() -> None:
    for seed in range(20):
        shape = invented(seed).organ.shape
        assert all(shape.box(z) is not None for z in np.linspace(0.0, HEIGHT, 11).tolist())


def invented(seed: int) -> Patient:
    return create_anatomy(np.random.default_rng(seed))
