"""Slices that a caller passes as arrays."""

import numpy as np

from contract.errors import DataError

SLICE_TYPES = (np.uint8, np.uint16, np.int16, np.int32)
"""The types of values that image files have, and int32, in which 16 bits are decoded."""

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey: ITU-R BT.601, as in OpenCV's RGB2GRAY."""


def to_slice(array: np.ndarray, channels: int = 3) -> np.ndarray:
    """The array as decode_image would return it: [H, W, C], uint8 or int32.

    Args:
        array: [H, W] or [H, W, C] with C = 1 (grey) or `channels`; uint8, uint16, int16 or int32.
        channels: 3 for RGB, or the number of slices in a stack.

    Raises:
        DataError: The array has another shape or type.
    """
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, channels) or 0 in pixels.shape:
        raise DataError(
            f"an array of shape {array.shape} is not a slice: pass [H, W], [H, W, 1] or "
            f"[H, W, {channels}]."
        )
    if pixels.dtype not in SLICE_TYPES:
        raise DataError(
            f"an array of {array.dtype} is not a slice: pass uint8, uint16, int16 or int32 with "
            "the intensities of the files that the network was trained on."
        )
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """A slice [H, W, 1 or 3] in grey, [H, W, 1], of the same type."""
    if pixels.shape[2] == 1:
        return pixels
    return np.rint(pixels @ np.array(LUMA, np.float32))[..., None].astype(pixels.dtype)


def format_size(pixels: np.ndarray) -> str:
    """Width and height of an array [H, W, ...], for messages: "512 x 400"."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
