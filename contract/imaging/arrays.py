"""Slices that a caller passes as arrays."""

import numpy as np

from contract.errors import DataError

SLICE_TYPES = (np.uint8, np.uint16, np.int16, np.int32)
"""The types of values that image files have, and int32, in which 16 bits are decoded."""


def to_slice(array: np.ndarray) -> np.ndarray:
    """The array as decode_image would return it: [H, W, C], uint8 or int32.

    Args:
        array: [H, W] or [H, W, C] with C = 1 (grey) or 3 (RGB); uint8, uint16, int16 or int32.

    Raises:
        DataError: The array has another shape or type.
    """
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise DataError(
            f"an array of shape {array.shape} is not a slice: pass [H, W], [H, W, 1] or [H, W, 3]."
        )
    if pixels.dtype not in SLICE_TYPES:
        raise DataError(
            f"an array of {array.dtype} is not a slice: pass uint8, uint16, int16 or int32 with "
            "the intensities of the files that the network was trained on."
        )
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)
