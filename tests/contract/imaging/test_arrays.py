"""Arrays of a caller are checked before they are used as slices."""

import cv2
import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.arrays import to_grey, to_slice


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
def test_slices_get_a_channel_axis(shape: tuple[int, ...], dtype: type) -> None:
    array = np.zeros(shape, dtype)
    assert to_slice(array).shape == (4, 5, *(shape[2:] or (1,)))
    assert to_slice(array).dtype == (np.uint8 if dtype is np.uint8 else np.int32)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((2, 4, 4, 1), np.uint8), r"shape \(2, 4, 4, 1\)"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (np.zeros((4, 4), np.float32), "float32"),
    ],
)
def test_other_arrays_are_errors(array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_slice(array)


def test_a_stack_has_the_channels_of_its_slices() -> None:
    assert to_slice(np.zeros((4, 5, 7), np.int16), 7).shape == (4, 5, 7)
    with pytest.raises(DataError, match=r"pass \[H, W\], \[H, W, 1\] or \[H, W, 7\]"):
        to_slice(np.zeros((4, 5, 3), np.int16), 7)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_grey_has_the_weights_of_opencv(dtype: type) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype)
    grey = to_grey(rgb)
    assert (grey.shape, grey.dtype) == ((20, 30, 1), dtype)
    expected = cv2.cvtColor(rgb.astype(np.uint8), cv2.COLOR_RGB2GRAY)
    assert np.abs(grey[..., 0].astype(int) - expected).max() <= 1
    assert to_grey(grey) is grey
