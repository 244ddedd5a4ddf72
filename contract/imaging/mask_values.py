"""Which values of masks are foreground, if no setting says so."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from contract.errors import DataError

_MIDDLE = 127
_MAX_NAMED = 5

POSSIBLE_THRESHOLDS = (0, _MIDDLE)
"""Masks are foreground above one of them, or alike, whatever decide_threshold returns."""


def count_values(mask: np.ndarray) -> dict[int, int]:
    """The number of pixels of each value that a mask [H, W] has."""
    if mask.dtype == np.uint8:
        counts = np.bincount(mask.ravel(), minlength=1)
        values = np.flatnonzero(counts)
        return {int(value): int(counts[value]) for value in values}
    values, counts = np.unique(mask, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def count_voxels(labels: np.ndarray) -> Counter[int]:
    """The number of voxels of each value that labels [slices, rows, columns] have."""
    # By slice, because bincount converts its input to 64 bits.
    counts: Counter[int] = Counter()
    for mask in labels:
        counts.update(count_values(mask))
    return counts


def equivalent_threshold(threshold: int, thresholds: Iterable[int]) -> int:
    """Which of several thresholds separates the masks as a decided threshold does.

    Masks whose threshold is neither 0 nor 127 have one value above 0, at least twice as large as
    the threshold, so every lower threshold separates them alike.
    """
    return max(each for each in thresholds if each <= threshold)


def decide_threshold(masks: Iterable[tuple[str, Mapping[int, int]]]) -> int:
    """The threshold above which the values of masks are foreground.

    Masks with one value besides 0 (0 and 1, or 0 and 255) have their threshold between the two.
    Masks of 8 bits with bright values (JPEG changes 255 a little) have 127.

    Args:
        masks: The name of each mask, and the number of its pixels by value.

    Raises:
        DataError: The masks have several values that may be labels, such as 0, 1 and 2.
    """
    names: dict[int, str] = {}
    for name, values in masks:
        for value in values:
            names.setdefault(value, name)
    foreground = sorted(value for value in names if value > 0)
    if len(foreground) == 1:
        return foreground[0] // 2
    if not foreground or _MIDDLE < foreground[-1] <= 255:
        return _MIDDLE
    listed = ", ".join(map(str, foreground[:_MAX_NAMED]))
    more = ", …" if foreground[_MAX_NAMED:] else ""
    raise DataError(
        f"the masks contain the values 0, {listed}{more} ({names[foreground[-1]]} contains "
        f"{foreground[-1]}), so it is not clear what is foreground: set data.mask_threshold (with "
        "0, every value above 0 is foreground), or save masks of 0 and 255."
    )
