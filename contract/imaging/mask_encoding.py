"""From the pixels of a mask file to classes: by a threshold, by grey value or by color.

A pixel belongs to the class whose value is nearest, if it is within the tolerance. Smoothed edges
contain values between those of two classes: a pixel with such a value, and with both classes next
to it, belongs to the nearer one. Where three classes meet, and in JPEG files up to the size of a
block of the chroma channels from an edge, other values occur, and the nearest line between two
classes counts. Every other value is an error, unless it is set to be background.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from contract.imaging.decode import decode_mask, decode_mask_colors, is_lossy
from contract.imaging.segmentation_class import (
    BACKGROUND_COLOR,
    BACKGROUND_VALUE,
    Color,
    SegmentationClass,
    single_foreground,
)
from contract.storage import Storage

_LOSSY_TOLERANCE = 32
# How far from a pixel of an edge both classes may be, in pixels.
_EDGE_RADIUS, _LOSSY_EDGE_RADIUS = 2, 8
# Largest difference of a smoothed edge from the line between the colors of two classes. Grey
# values in between are on the line.
_BLEND_TOLERANCE = 8
_MAX_NAMED = 3


@dataclass(frozen=True)
class MaskEncoding:
    """How mask files encode the classes.

    Attributes:
        classes: The classes; index 1 of a decoded mask is the first of them, 0 the background.
        threshold: Foreground is above it, for a single class without a value; None otherwise.
        tolerance: Largest difference of a pixel from the value of its class, in each channel;
            None: 0, and 32 in JPEG files.
        other_is_background: Whether a value of no class is background, not an error.
    """

    classes: tuple[SegmentationClass, ...]
    threshold: int | None = None
    tolerance: int | None = None
    other_is_background: bool = False

    def read(self, storage: Storage, key: str) -> NDArray[np.uint8]:
        """Read a mask: [H, W] of class indices.

        Raises DataError naming the file if it cannot be used, StorageError if it is missing.
        """
        return self.decode(storage.read(key), f"{storage.url}/{key}")

    def decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """Decode a mask file to class indices [H, W]; name: what an error calls it.

        Raises DataError if it is damaged or has a value of no class.
        """
        if self.threshold is not None:
            return (decode_mask(data, name) > self.threshold).astype(np.uint8)
        if self._by_color:
            values = decode_mask_colors(data, name).astype(np.int32)
        else:
            values = decode_mask(data, name).astype(np.int32)[..., None]
        is_jpeg = is_lossy(data)
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = _LOSSY_TOLERANCE if is_jpeg else 0
        known = self._class_values()
        mask, unknown = _assign_nearest(values, known, tolerance)
        if unknown.any():
            _assign_edges(mask, unknown, values, known, is_jpeg)
        if unknown.any() and not self.other_is_background:
            raise DataError(self._unknown_values_error(values[unknown], name))
        return mask

    @property
    def _by_color(self) -> bool:
        return not isinstance(self.classes[0].value, int)

    def _class_values(self) -> NDArray[np.int32]:
        """[K + 1, 1 or 3]: the value of the background, then that of each class."""
        if self._by_color:
            return np.array([BACKGROUND_COLOR, *(each.value for each in self.classes)], np.int32)
        values = [BACKGROUND_VALUE, *(each.value for each in self.classes)]
        return np.array(values, np.int32)[:, None]

    def _unknown_values_error(self, values: NDArray[np.int32], name: str) -> str:
        """The message for pixels [N, 1 or 3] that belong to no class."""
        unknown, counts = np.unique(values, axis=0, return_counts=True)
        most_common = np.argsort(-counts, kind="stable")[:_MAX_NAMED]
        listed = ", ".join(f"{format_value(unknown[i])} ({counts[i]} pixels)" for i in most_common)
        more = ", …" if len(unknown) > _MAX_NAMED else ""
        noun = "color" if self._by_color else "value"
        return (
            f"{name}: {len(values)} pixels have a {noun} of no class: {listed}{more}; add it to "
            "data.classes, set data.class_tolerance, or set data.other_values_are_background = true"
        )


def threshold_encoding(threshold: int) -> MaskEncoding:
    """Masks of one class, foreground above a threshold."""
    return MaskEncoding(single_foreground(), threshold)


def format_value(value: int | Color | Sequence[int] | NDArray[np.integer]) -> str:
    """A grey value as "3", a color as "#ff8000"."""
    channels = np.atleast_1d(np.asarray(value))
    return str(channels[0]) if len(channels) == 1 else "#" + bytes(channels.tolist()).hex()


def _assign_nearest(
    values: NDArray[np.int32], known: NDArray[np.int32], tolerance: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The index [H, W] of the nearest known value, and where it is not within the tolerance."""
    mask = np.zeros(values.shape[:2], np.uint8)
    smallest = np.full(values.shape[:2], np.iinfo(np.int32).max, np.int32)
    for index, value in enumerate(known):
        difference = np.abs(values - value).max(axis=-1)
        closer = difference < smallest
        mask[closer], smallest[closer] = index, difference[closer]
    unknown = smallest > tolerance
    mask[unknown] = 0
    return mask, unknown


def _assign_edges(
    mask: NDArray[np.uint8],
    unknown: NDArray[np.bool_],
    values: NDArray[np.int32],
    known: NDArray[np.int32],
    is_jpeg: bool,
) -> None:
    """Assign the pixels of edges between two classes, in place; `unknown` keeps the others."""
    radius = _LOSSY_EDGE_RADIUS if is_jpeg else _EDGE_RADIUS
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    rows, columns = np.nonzero(unknown)
    pixels = values[rows, columns].astype(np.float32)
    is_near = [
        cv2.dilate(((mask == index) & ~unknown).astype(np.uint8), kernel)[rows, columns] > 0
        for index in range(len(known))
    ]
    any_value = np.sum(is_near, axis=0) > 2
    if is_jpeg:
        any_value[:] = True
    tolerance = _BLEND_TOLERANCE if values.shape[-1] == 3 else 0
    best = np.full(len(pixels), np.inf, np.float32)
    chosen = np.zeros(len(pixels), np.uint8)
    for first in range(len(known)):
        for second in range(first + 1, len(known)):
            distance, is_second = _distance_to_line(pixels, known[first], known[second])
            fits = is_near[first] & is_near[second] & (distance < best)
            fits &= any_value | (distance <= tolerance)
            best[fits] = distance[fits]
            chosen[fits] = np.where(is_second[fits], second, first)
    assigned = np.isfinite(best)
    mask[rows[assigned], columns[assigned]] = chosen[assigned]
    unknown[rows[assigned], columns[assigned]] = False


def _distance_to_line(
    pixels: NDArray[np.float32], first: NDArray[np.int32], second: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The largest difference, over the channels, of pixels [N, C] from the line between two values.

    Also whether the nearest point of the line is nearer to the second value.
    """
    direction = (second - first).astype(np.float32)
    position = np.clip((pixels - first) @ direction / (direction @ direction), 0.0, 1.0)
    difference = pixels - (first + position[:, None] * direction)
    return np.abs(difference).max(axis=-1), position > 0.5
