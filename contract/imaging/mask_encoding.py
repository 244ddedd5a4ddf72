"""From the pixels of a mask file to classes: by a threshold, by grey value or by color.

A pixel belongs to the class whose value is nearest, if it is within the tolerance. Smoothed edges
contain values between those of classes: a pixel with such a value, and with these classes next to
it, belongs to the nearest of them. That is only so if all values are far apart: labels such as 1, 2
and 3 have nothing in between. JPEG changes the values around an edge in other ways too, up to the
size of a block of its chroma channels. Every other value is an error, unless it is set to be
background.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

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
# The smallest difference of two values between which there can be smoothed edges.
_MIN_EDGE_CONTRAST = 2 * _LOSSY_TOLERANCE
# How far from a pixel of an edge its classes may be, in pixels.
_EDGE_RADIUS, _LOSSY_EDGE_RADIUS = 2, 8
# Largest difference of a pixel of an edge from the line between two values: of grey ones, of
# colors, and in JPEG files.
_GREY_BLEND, _COLOR_BLEND, _LOSSY_BLEND = 0.5, 8.0, 80.0
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
        known, lossy = self._class_values(), is_lossy(data)
        has_edges = _smallest_contrast(known) >= _MIN_EDGE_CONTRAST
        if lossy and not has_edges:
            raise DataError(
                f"{name} is a JPEG file, in which values of classes that differ by less than "
                f"{_MIN_EDGE_CONTRAST} cannot be told apart: save the masks as PNG."
            )
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = _LOSSY_TOLERANCE if lossy else 0
        mask, unknown = _assign_nearest(values, known, tolerance)
        if has_edges and unknown.any():
            _assign_edges(mask, unknown, values, known, lossy)
        if lossy:
            _remove_edges_of_other_classes(mask, values, known)
        if unknown.any() and not self.other_is_background:
            raise UnknownValuesError(self._describe(values[unknown], name))
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

    def _describe(self, values: NDArray[np.int32], name: str) -> str:
        """What is wrong with a mask that has pixels [N, 1 or 3] of no class."""
        unknown, counts = np.unique(values, axis=0, return_counts=True)
        most_common = np.argsort(-counts, kind="stable")[:_MAX_NAMED]
        listed = ", ".join(f"{format_value(unknown[i])} ({counts[i]} pixels)" for i in most_common)
        more = ", …" if len(unknown) > _MAX_NAMED else ""
        noun = "color" if self._by_color else "value"
        return f"{name}: {len(values)} pixels have a {noun} of no class: {listed}{more}"


class UnknownValuesError(DataError):
    """Pixels of a mask belong to no class.

    fault: what is wrong, without a remedy, for callers that have another one.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(
            f"{fault}; add it to data.classes, set data.class_tolerance, or set "
            "data.other_values_are_background = true."
        )
        self.fault = fault


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


def _smallest_contrast(known: NDArray[np.int32]) -> int:
    """The smallest difference of two values, in the channel in which they differ most."""
    return min(int(np.abs(first - second).max()) for first, second in combinations(known, 2))


def _assign_edges(
    mask: NDArray[np.uint8],
    unknown: NDArray[np.bool_],
    values: NDArray[np.int32],
    known: NDArray[np.int32],
    lossy: bool,
) -> None:
    """Assign the pixels of edges between classes, in place; `unknown` keeps the others."""
    rows, columns = np.nonzero(unknown)
    pixels = values[rows, columns].astype(np.float32)
    is_near = _find_neighbors(mask, ~unknown, len(known), lossy)[:, rows, columns]
    tolerance = _COLOR_BLEND if known.shape[1] == 3 else _GREY_BLEND
    if lossy:
        tolerance = _LOSSY_BLEND
    best = np.full(len(pixels), tolerance, np.float32)
    chosen = np.zeros(len(pixels), np.uint8)
    assigned = np.zeros(len(pixels), bool)
    for first, second in combinations(range(len(known)), 2):
        distance, is_second = _distance_to_line(pixels, known[first], known[second])
        fits = is_near[first] & is_near[second] & (distance <= best)
        best[fits], assigned[fits] = distance[fits], True
        chosen[fits] = np.where(is_second[fits], second, first)
    for corners in combinations(range(len(known)), 3):
        fits = ~assigned & is_near[list(corners)].all(axis=0)
        fits[fits] = _is_in_triangle(pixels[fits], known[list(corners)], tolerance)
        differences = np.abs(pixels[fits, None] - known[list(corners)]).max(axis=-1)
        chosen[fits] = np.array(corners, np.uint8)[differences.argmin(axis=1)]
        assigned |= fits
    mask[rows[assigned], columns[assigned]] = chosen[assigned]
    unknown[rows[assigned], columns[assigned]] = False


def _find_neighbors(
    mask: NDArray[np.uint8], is_known: NDArray[np.bool_], count: int, lossy: bool
) -> NDArray[np.bool_]:
    """[count, H, W]: whether a known pixel of each class is near."""
    radius = _LOSSY_EDGE_RADIUS if lossy else _EDGE_RADIUS
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    areas = [((mask == index) & is_known).astype(np.uint8) for index in range(count)]
    return np.stack([cv2.dilate(area, kernel) > 0 for area in areas])


def _remove_edges_of_other_classes(
    mask: NDArray[np.uint8], values: NDArray[np.int32], known: NDArray[np.int32]
) -> None:
    """Assign thin lines of a class between two others to these, in place.

    The edge between a class of 255 and the background of a JPEG file passes the values of every
    class in between.
    """
    is_near = _find_neighbors(mask, np.ones(mask.shape, bool), len(known), lossy=True)
    for first, second in combinations(range(len(known)), 2):
        for between in set(range(len(known))) - {first, second}:
            value = known[between : between + 1].astype(np.float32)
            distance, _ = _distance_to_line(value, known[first], known[second])
            area = mask == between
            if distance[0] > _LOSSY_TOLERANCE or not area.any():
                continue
            kernel = np.ones((3, 3), np.uint8)
            solid = cv2.morphologyEx(area.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
            thin = area & ~solid & is_near[first] & is_near[second]
            _, is_second = _distance_to_line(
                values[thin].astype(np.float32), known[first], known[second]
            )
            mask[thin] = np.where(is_second, second, first)


def _is_in_triangle(
    pixels: NDArray[np.float32], corners: NDArray[np.int32], tolerance: float
) -> NDArray[np.bool_]:
    """Whether colors [N, C] are mixtures of three colors [3, C]."""
    edges = (corners[1:] - corners[0]).astype(np.float32)
    weights = (pixels - corners[0]) @ np.linalg.pinv(edges)
    mixed = corners[0] + np.clip(weights, 0.0, 1.0) @ edges
    is_mixture = (weights > -0.1).all(axis=-1) & (weights.sum(axis=-1) < 1.1)
    return is_mixture & (np.abs(pixels - mixed).max(axis=-1) <= tolerance)


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
