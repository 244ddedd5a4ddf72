"""Geometric transformations against exact results of NumPy and OpenCV."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from contract.config import Augment
from trainer.data import geometric_transforms
from trainer.data.random_numbers import NAMES, RandomNumbers

IMAGE = np.random.default_rng(0).random((1, 24, 24, 2)).astype(np.float32)
NOTHING = {name: 0.0 for name in Augment.model_fields if name.endswith("_probability")}


def transform(image: np.ndarray, values: dict[str, float], **settings: float) -> np.ndarray:
    """The image [1, H, W, C] transformed with these draws, the others being one half."""
    random = RandomNumbers(tf.constant([[values.get(name, 0.5) for name in NAMES]]))
    augment = Augment.model_validate({**NOTHING, **settings})
    mask = tf.zeros((*image.shape[:3], 1))
    images, _ = geometric_transforms.apply(tf.constant(image), mask, random, {}, augment)
    return images.numpy()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_are_exact(turns: int) -> None:
    turned = transform(IMAGE, {"right_angles.turns": (turns - 0.5) / 3}, right_angles=1)
    assert np.array_equal(turned[0], np.rot90(IMAGE[0], turns))


def test_flips_are_exact() -> None:
    assert np.array_equal(transform(IMAGE, {}, flip_horizontal=1), IMAGE[:, :, ::-1])
    assert np.array_equal(transform(IMAGE, {}, flip_vertical=1), IMAGE[:, ::-1])


def test_a_shift_moves_by_a_fraction_of_the_size() -> None:
    moved = transform(IMAGE, {"shift.y": 1.0}, shift_probability=1, shift=0.25)
    assert np.allclose(moved[:, 6:], IMAGE[:, :18])
    assert not moved[:, :6].any()


def test_rotation_and_scale_are_those_of_opencv() -> None:
    smooth = cv2.GaussianBlur(IMAGE[0], (0, 0), 2)
    settings = {"rotation_probability": 1.0, "rotation": 30.0, "scale_probability": 1.0}
    values = {"rotation.angle": 0.9, "scale.factor": 0.8}
    turned = transform(smooth[None], values, **settings, scale=1.5)[0]
    matrix = cv2.getRotationMatrix2D((11.5, 11.5), 0.8 * 30.0, 1.5**0.6)
    expected = cv2.warpAffine(smooth, matrix, (24, 24))
    # OpenCV rounds positions to 1/32 pixel.
    assert np.abs(turned - expected).max() < 0.02


def test_points_between_pixels_are_interpolated_and_points_outside_are_zero() -> None:
    values = tf.constant(IMAGE)
    y, x = tf.constant([[[2.25, -0.5, -1.0, 40.0]]]), tf.constant([[[3.5, 3.0, 3.0, 3.0]]])
    planes = geometric_transforms.interpolate(tf.unstack(values, axis=3), y, x)
    inside, edge, outside, far = np.stack(planes, axis=-1)[0, 0]
    upper = (IMAGE[0, 2, 3] + IMAGE[0, 2, 4]) / 2
    lower = (IMAGE[0, 3, 3] + IMAGE[0, 3, 4]) / 2
    assert inside == pytest.approx(0.75 * upper + 0.25 * lower)
    assert edge == pytest.approx(IMAGE[0, 0, 3] / 2)
    assert not outside.any()
    assert not far.any()


def test_the_elastic_field_passes_through_its_grid_and_is_smooth() -> None:
    grid = np.random.default_rng(1).normal(size=(1, 6, 6)).astype(np.float32)
    field = geometric_transforms._interpolate_grid(tf.constant(grid), 51, 101).numpy()
    assert np.allclose(field[:, ::10, ::20], grid, atol=1e-5)
    assert np.abs(np.diff(field, axis=1)).max() < 1.0


@pytest.mark.parametrize(("name", "farther"), [("barrel", True), ("pincushion", False)])
def test_radial_distortion_moves_the_corners_most(name: str, farther: bool) -> None:
    random = RandomNumbers(tf.ones((1, len(NAMES))) * 0.999)
    augment = Augment.model_validate({**NOTHING, f"{name}_probability": 1.0, name: 0.5})
    y, x = geometric_transforms.sampling_points(random, {}, augment, (33, 65))
    distances = [np.hypot(y[0, i, i] - 16, x[0, i, i] - 32) for i in (0, 8)]
    moved = [abs(d - np.hypot(16 - i, 32 - i)) for d, i in zip(distances, (0, 8), strict=True)]
    assert moved[0] > moved[1] > 0
    assert (distances[0] > np.hypot(16, 32)) == farther


def test_grid_distortion_keeps_the_ends_in_place() -> None:
    cells = tf.constant([[1.2, 0.8, 1.0, 0.7, 1.3]])
    moved = geometric_transforms._stretch(cells, 50).numpy()[0]
    assert abs(moved[0]) < 0.2
    assert abs(moved[-1]) < 0.2
    assert np.abs(moved).max() > 1
    assert (np.diff(moved + np.arange(50)) > 0).all()
