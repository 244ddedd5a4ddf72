"""The intensities of the training foreground, and how they scale the input of a network.

They are counted when the pairs of a dataset are decoded, exactly, because raw intensities are whole
numbers. Which mask values are foreground and which slices are for training is known only when all
are decoded, so they are counted for each possible threshold and each patient.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from contract.imaging.intensity_scaling import IntensityScaling
from trainer.data.pairing import Pair
from trainer.data.splits import Split

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
"""Of the foreground, as in nnU-Net (Isensee 2021)."""

IntensityCounts = tuple[tuple[int, int], ...]
"""Raw intensities from low to high, each with its number of pixels."""


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Histogram:
    """The number of pixels of each raw intensity: counts[i] is that of low + i."""

    low: int = 0
    counts: NDArray[np.int64] = field(default_factory=_no_counts)

    def __add__(self, other: "Histogram") -> "Histogram":
        if not len(self.counts) or not len(other.counts):
            return self if len(self.counts) else other
        low = min(self.low, other.low)
        counts = np.zeros(
            max(each.low + len(each.counts) for each in (self, other)) - low, np.int64
        )
        for each in (self, other):
            start = each.low - low
            counts[start : start + len(each.counts)] += each.counts
        return Histogram(low, counts)

    def to_counts(self) -> IntensityCounts:
        """The intensities that occur."""
        occurring = np.flatnonzero(self.counts)
        return tuple((self.low + int(index), int(self.counts[index])) for index in occurring)


def count_intensities(pixels: NDArray[np.integer]) -> Histogram:
    """The histogram of raw intensities of any shape; every channel counts."""
    if not pixels.size:
        return Histogram()
    low = int(pixels.min())
    return Histogram(low, np.bincount((pixels.astype(np.int64) - low).ravel()))


ForegroundHistograms = Mapping[int, Histogram]
"""The histogram of the foreground above each possible mask threshold."""


def count_foreground(
    image: NDArray[np.integer], mask: NDArray[np.integer], thresholds: Iterable[int]
) -> ForegroundHistograms:
    """The histograms of a slice: image [H, W, C] and the values of its mask [H, W]."""
    return {threshold: count_intensities(image[mask > threshold]) for threshold in thresholds}


@final
class ForegroundCounter:
    """Sums of the histograms of slices by patient, whatever the number of slices."""

    def __init__(self) -> None:
        self._histograms: dict[tuple[Split | None, str, int], Histogram] = {}

    def add(self, pair: Pair, histograms: ForegroundHistograms) -> None:
        """Count the foreground of a slice."""
        for threshold, histogram in histograms.items():
            key = (pair.split, pair.patient, threshold)
            self._histograms[key] = self._histograms.get(key, Histogram()) + histogram

    def total(self, pairs: Iterable[Pair], threshold: int) -> IntensityCounts:
        """The foreground of all slices of the patients of these pairs, as they were added."""
        patients: set[tuple[Split | None, str]] = {(pair.split, pair.patient) for pair in pairs}
        return sum(
            (self._histograms[split, patient, threshold] for split, patient in patients),
            Histogram(),
        ).to_counts()


def foreground_scaling(foreground: Sequence[tuple[int, int]]) -> IntensityScaling:
    """Clip to the percentiles of the foreground, then z-score by the clipped foreground.

    Mean and standard deviation (of the population) are those of the clipped intensities. Raises
    DataError without foreground, or if low and high percentile are equal.
    """
    if not foreground:
        raise DataError("the train split has no foreground")
    values, counts = np.array(foreground, np.int64).T
    low, high = (find_percentile(values, counts, q) for q in (LOW_PERCENTILE, HIGH_PERCENTILE))
    if low == high:
        raise DataError(
            f"the percentiles {LOW_PERCENTILE:g} and {HIGH_PERCENTILE:g} of the foreground of the "
            f"train split are both {low:g}"
        )
    clipped, total = np.clip(values.astype(np.float64), low, high), counts.sum()
    mean = float((clipped * counts).sum() / total)
    variance = float((np.square(clipped - mean) * counts).sum() / total)
    return IntensityScaling(low, high, mean, math.sqrt(variance))


def find_percentile(values: NDArray[np.int64], counts: NDArray[np.int64], q: float) -> float:
    """The q-th percentile of sorted values with their counts, as numpy.percentile computes it."""
    ends = np.cumsum(counts)
    position = q / 100 * (int(ends[-1]) - 1)
    below = math.floor(position)
    first, second = (
        int(values[np.searchsorted(ends, rank, side="right")])
        for rank in (below, min(below + 1, int(ends[-1]) - 1))
    )
    return first + (second - first) * (position - below)
