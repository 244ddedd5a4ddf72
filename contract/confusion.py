"""Hard scores of masks against the truth, from counts of pixels.

With TP, FP, FN and TN the pixels that are found, wrongly marked, missed and rightly left alone
(Taha & Hanbury 2015, doi:10.1186/s12880-015-0068-x):

    Dice = 2 TP / (2 TP + FP + FN)        sensitivity = TP / (TP + FN)
    IoU  = TP / (TP + FP + FN)            specificity = TN / (TN + FP)

A patient's scores come from the sums over all of the patient's slices, the stacked volume: a slice
with little foreground weighs little. They are not the mean of the slices' scores.

The empty case. Where the truth has no foreground, Dice and IoU are 1 if the prediction has none
either and 0 otherwise, so that an empty patient counts, and an invented organ costs. Sensitivity is
then undefined, and so is specificity where the truth has no background: None, left out of the mean
and counted in Spread.undefined.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ConfusionCounts:
    """Pixels by prediction and truth; counts of slices add up to those of a volume."""

    tp: int = 0
    """Foreground that is found."""
    fp: int = 0
    """Background that is marked."""
    fn: int = 0
    """Foreground that is missed."""
    tn: int = 0
    """Background that is left alone."""

    def __add__(self, other: "ConfusionCounts") -> "ConfusionCounts":
        return ConfusionCounts(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def empty(self) -> bool:
        """Whether the truth has no foreground."""
        return self.tp + self.fn == 0

    @property
    def predicted_empty(self) -> bool:
        """Whether the prediction has no foreground."""
        return self.tp + self.fp == 0

    @property
    def dice(self) -> float:
        """Dice coefficient, 0 to 1; 1 where both masks are empty."""
        marked = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / marked if marked else 1.0

    @property
    def iou(self) -> float:
        """Intersection over union, 0 to 1; 1 where both masks are empty."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else 1.0

    @property
    def sensitivity(self) -> float | None:
        """Share of the foreground that is found; None where there is none."""
        return None if self.empty else self.tp / (self.tp + self.fn)

    @property
    def specificity(self) -> float | None:
        """Share of the background that is left alone; None where there is none."""
        background = self.tn + self.fp
        return self.tn / background if background else None


def confusion_counts(prediction: ArrayLike, truth: ArrayLike) -> ConfusionCounts:
    """Counts of two masks of the same shape; whatever is not 0 is foreground."""
    found, wanted = np.asarray(prediction) != 0, np.asarray(truth) != 0
    if found.shape != wanted.shape:
        raise ValueError(f"masks of shapes {found.shape} and {wanted.shape} cannot be compared")
    tp = int(np.count_nonzero(found & wanted))
    fp = int(np.count_nonzero(found)) - tp
    fn = int(np.count_nonzero(wanted)) - tp
    return ConfusionCounts(tp, fp, fn, found.size - tp - fp - fn)


@dataclass(frozen=True)
class MetricSummary:
    """How one score varies over patients."""

    mean: float | None
    """None where no patient has the score."""
    sd: float | None
    """Sample standard deviation (n - 1); None with fewer than two patients."""
    min: float | None
    max: float | None
    defined: int
    """Patients the score is defined for."""
    undefined: int
    """Patients left out because it is not."""


def summarize(values: Iterable[float | None]) -> MetricSummary:
    """Mean, deviation and range of a score over patients; None is an undefined one."""
    every = list(values)
    kept = [value for value in every if value is not None]
    return MetricSummary(
        mean=statistics.fmean(kept) if kept else None,
        sd=statistics.stdev(kept) if len(kept) > 1 else None,
        min=min(kept, default=None),
        max=max(kept, default=None),
        defined=len(kept),
        undefined=len(every) - len(kept),
    )
