"""Intensity changes against exact results of OpenCV and NumPy."""

import cv2
import numpy as np
import tensorflow as tf

from trainer.data import intensity_transforms

IMAGES = np.random.default_rng(0).random((2, 20, 24, 1)).astype(np.float32)


def test_each_image_is_blurred_by_its_own_sigma() -> None:
    blurred = intensity_transforms.blur(tf.constant(IMAGES), tf.constant([0.0, 1.2]), 1.2).numpy()
    assert np.allclose(blurred[0], IMAGES[0])
    expected = cv2.GaussianBlur(IMAGES[1], (9, 9), 1.2, borderType=cv2.BORDER_REFLECT)
    assert np.allclose(blurred[1, ..., 0], expected, atol=1e-6)


def test_sharpening_increases_contrast_at_an_edge() -> None:
    edge = np.full((2, 16, 16, 1), 0.3, np.float32)
    edge[:, :, 8:] = 0.6
    sharp = intensity_transforms.sharpen(tf.constant(edge), tf.constant([0.0, 1.0])).numpy()
    assert np.allclose(sharp[0], edge[0])
    assert sharp[1].max() > 0.65
    assert sharp[1].min() < 0.25


def test_a_lower_resolution_interpolates_between_the_pixels_that_are_left() -> None:
    reduced = intensity_transforms.reduce_resolution(
        tf.constant(IMAGES), tf.constant([1.0, 2.0])
    ).numpy()
    assert np.array_equal(reduced[0], IMAGES[0])
    assert np.array_equal(reduced[1, ::2, ::2], IMAGES[1, ::2, ::2])
    between = (IMAGES[1, 0, 0] + IMAGES[1, 2, 0]) / 2
    assert np.allclose(reduced[1, 1, 0], between)
