"""The shared way from raw slice to network and back."""

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Data
from contract.imaging.intensity_scaling import IntensityScaling
from trainer.data import preprocessing

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "sizes", [((300, 400), (128, 128)), ((64, 48), (128, 200)), ((9, 7), (9, 7))]
)
def test_resize_equals_tensorflows_antialiased_one(
    sizes: tuple[tuple[int, int], tuple[int, int]], channels: int
) -> None:
    (height, width), to = sizes
    maps = RANDOM.random((8, height, width, channels), np.float32)
    ours = preprocessing.resize(tf.constant(maps), *to)
    theirs = tf.image.resize(maps, to, antialias=True)
    assert np.abs(ours - theirs).max() < 1e-5


def test_grey_and_rgb_become_one_another() -> None:
    grey = RANDOM.random((1, 5, 5, 1), np.float32)
    rgb = preprocessing.match_channels(tf.constant(grey), 3)
    assert rgb.shape == (1, 5, 5, 3)
    assert np.allclose(preprocessing.match_channels(rgb, 1), grey, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_fitted_slices_are_whole_raw_intensities(dtype: type) -> None:
    slices = RANDOM.integers(0, 255, (2, 40, 30, 1)).astype(dtype)
    fitted = preprocessing.resize_slices(tf.constant(slices), (16, 16), 1, Data()).numpy()
    assert fitted.shape == (2, 16, 16, 1)
    assert np.array_equal(fitted, np.round(fitted))
    assert slices.min() <= fitted.min() <= fitted.max() <= slices.max()


def test_intensities_are_clipped_and_scaled() -> None:
    raw = tf.constant([-500.0, -100.0, 50.0, 200.0, 999.0])
    window = IntensityScaling.from_window(-100.0, 200.0)
    normalized = preprocessing.normalize(raw, window).numpy()
    assert np.allclose(normalized, [0, 0, 0.5, 1, 1])
    # The second step changes no bit of a window.
    assert np.array_equal(normalized, preprocessing.apply_window(raw, window))
    scaling = IntensityScaling(-100.0, 200.0, mean=80.0, std=40.0)
    expected = (np.array([-100.0, -100.0, 50.0, 200.0, 200.0]) - 80.0) / 40.0
    assert np.allclose(preprocessing.normalize(raw, scaling), expected, atol=1e-6)


@pytest.mark.parametrize("window", [(0.0, 255.0), (-160.0, 240.0), (0.1, 0.7), (-1.5, 1999.3)])
def test_a_window_is_standardized_to_itself(window: tuple[float, float]) -> None:
    images = RANDOM.random((2, 8, 8, 1), np.float32)
    scaling = IntensityScaling.from_window(*window)
    assert np.array_equal(preprocessing.standardize(images, scaling), images)
    assert np.array_equal(preprocessing.standardize(tf.constant(images), scaling), images)
