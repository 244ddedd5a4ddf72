"""Overlapping windows: every pixel in its place, blended by a gaussian, a few at a time."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.export.sliding_window import blend_windows

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("shape", [(32, 32), (20, 50), (97, 64)])
def test_windows_of_a_constant_answer_blend_to_it(steps: int, shape: tuple[int, int]) -> None:
    def constant(windows: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(windows[:, :, :, :1]) + 0.3

    images = tf.zeros((2, *shape, 3))
    blended = blend_windows(images, constant, (32, 32), steps, 5, 1)
    assert blended.shape == (2, *shape, 1)
    assert np.allclose(blended, 0.3, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("window", [(16, 32), (32, 16)])
def test_rectangular_windows_put_every_pixel_back_in_its_place(
    steps: int, window: tuple[int, int]
) -> None:
    shapes: list[tuple[int | None, ...]] = []

    def probability(windows: tf.Tensor) -> tf.Tensor:
        shapes.append(tuple(windows.shape[1:]))
        return windows

    slices = RANDOM.random((2, 75, 41, 1), np.float32)
    blended = blend_windows(tf.constant(slices), probability, window, steps, 5, 1)
    assert np.abs(blended - slices).max() < 1e-5
    assert set(shapes) == {(*window, 1)}


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_windows_put_every_pixel_back_in_its_place(steps: int) -> None:
    slices = tf.constant(RANDOM.random((2, 75, 41, 3), np.float32))
    blended = blend_windows(slices, lambda windows: windows, (16, 16), steps, 5, 3)
    assert np.abs(blended - slices).max() < 1e-5


def test_the_network_gets_no_more_windows_at_once_than_it_may() -> None:
    seen: list[int] = []

    def probability(windows: tf.Tensor) -> tf.Tensor:
        seen.append(len(windows))
        return windows

    blend_windows(tf.zeros((2, 64, 48, 1)), probability, (16, 16), 2, 4, 1)
    assert sum(seen) == 2 * 7 * 5
    assert max(seen) == 4
