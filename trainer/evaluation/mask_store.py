"""The masks of an evaluation in memory, for its images."""

import zlib

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset_index import SliceRecord


class MaskStore:
    """Masks in memory, compressed: one of 512 x 512 pixels takes a few kilobytes."""

    def __init__(self) -> None:
        self._masks: dict[SliceRecord, tuple[bytes, tuple[int, ...]]] = {}

    def put(self, record: SliceRecord, mask: NDArray[np.uint8]) -> None:
        """Keep the mask [H, W] of a slice."""
        self._masks[record] = zlib.compress(mask.tobytes(), 1), mask.shape

    def get(self, record: SliceRecord) -> NDArray[np.uint8]:
        """The mask of a slice."""
        data, shape = self._masks[record]
        return np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape)
