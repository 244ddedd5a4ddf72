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
    grid = np.random.default_rng(1).normal(size=(1, 6, 11)).astype(np.float32)
    field = geometric_transforms._interpolate_grid(tf.constant(grid), (51, 101)).numpy()
    # The points are ten pixels apart along both axes.
    assert np.allclose(field[:, ::10, ::10], grid, atol=1e-5)
    assert np.abs(np.diff(field, axis=1)).max() < 1.0


RECTANGLES = [(48, 80), (80, 48), (49, 80)]


def draw_disc(size: tuple[int, int], radius: float, center: tuple[float, float]) -> np.ndarray:
    """A disc with a soft edge: [1, H, W, 1] in 0..1; center: from the center of the image."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    y, x = (
        position - (length - 1) / 2 - offset
        for position, length, offset in zip((y, x), size, center, strict=True)
    )
    disc = np.clip(radius + 0.5 - np.hypot(y, x), 0.0, 1.0)
    return disc[None, ..., None].astype(np.float32)


@pytest.mark.parametrize("size", RECTANGLES)
@pytest.mark.parametrize("angle", [90.0, -90.0, 30.0, 137.0])
def test_a_rotated_disc_of_a_rectangular_slice_stays_a_disc(
    size: tuple[int, int], angle: float
) -> None:
    y, x = 9.0, -5.0
    values = {"rotation.angle": 0.5 + angle / 360}
    turned = transform(draw_disc(size, 8.0, (y, x)), values, rotation_probability=1, rotation=180.0)
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    expected = draw_disc(size, 8.0, (cosine * y - sine * x, sine * y + cosine * x))
    # Interpolation blurs the edge of the disc, which is one pixel wide.
    assert np.abs(turned - expected).max() < 0.3
    assert np.abs(turned - expected).mean() < 0.005


@pytest.mark.parametrize("size", [(48, 80), (80, 48)])
def test_a_right_angle_of_a_rectangular_slice_is_exact(size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).random((1, *size, 1)).astype(np.float32)
    turned = transform(image, {"right_angles.turns": 0.1}, right_angles=1)
    top, left = (size[0] - 48) // 2, (size[1] - 48) // 2
    square = np.s_[0, top : top + 48, left : left + 48]
    assert np.array_equal(turned[square], np.rot90(image[square]))
    # What the slice does not contain is 0.
    assert turned.sum() == pytest.approx(image[square].sum(), rel=1e-5)


@pytest.mark.parametrize("size", RECTANGLES)
def test_a_zoom_of_a_rectangular_slice_is_the_same_along_both_axes(size: tuple[int, int]) -> None:
    values = {"scale.factor": 1.0}
    zoomed = transform(draw_disc(size, 8.0, (6, 4)), values, scale_probability=1, scale=1.5)
    assert np.abs(zoomed - draw_disc(size, 12.0, (9, 6))).max() < 0.5
    assert zoomed.sum() == pytest.approx(np.pi * 12.0**2, rel=0.03)


@pytest.mark.parametrize("size", RECTANGLES)
def test_a_shear_of_a_rectangular_slice_has_its_angle_in_pixels(size: tuple[int, int]) -> None:
    augment = Augment.model_validate({**NOTHING, "shear_probability": 1.0, "shear": 20.0})
    random = RandomNumbers(
        tf.constant([[{"shear.y": 0.5, "shear": 0.5}.get(name, 1.0) for name in NAMES]])
    )
    y, x = geometric_transforms.sampling_points(random, {}, augment, size)
    tangent = np.tan(np.deg2rad(20.0))
    assert np.allclose(np.diff(x[0], axis=0), tangent, atol=1e-4)
    assert np.allclose(np.diff(y[0], axis=1), 0.0, atol=1e-4)


@pytest.mark.parametrize("size", [(48, 96), (96, 48)])
def test_elastic_deformation_of_a_rectangular_slice_is_the_same_along_both_axes(
    size: tuple[int, int],
) -> None:
    augment = Augment.model_validate({**NOTHING, "elastic_probability": 1.0, "elastic": 0.05})
    random = RandomNumbers(tf.zeros((1, len(NAMES))))
    displacements = []
    for seed in range(40):
        fields = geometric_transforms.draw_fields(tf.constant([seed, 1]), augment, size)
        batch = {name: field[None] for name, field in fields.items()}
        y, x = geometric_transforms.sampling_points(random, batch, augment, size)
        rows, columns = np.mgrid[: size[0], : size[1]]
        displacements.append(np.stack([y[0] - rows, x[0] - columns]))
    moved = np.array(displacements)
    # In pixels, both the lengths and how quickly they change are equal along the axes.
    assert moved[:, 0].std() == pytest.approx(moved[:, 1].std(), rel=0.1)
    along_y, along_x = (np.diff(moved, axis=axis).std() for axis in (2, 3))
    assert along_y == pytest.approx(along_x, rel=0.1)


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
