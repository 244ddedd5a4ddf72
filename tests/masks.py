"""Masks."""

import numpy as np
from numpy.typing import NDArray


def square(size: int, top: int, left: int, side: int) -> NDArray[np.uint8]:
    """A mask with a square of foreground."""
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask
