"""Confusion counts of masks, and the metrics that follow from them.

With TP, FP, FN and TN the true and false positive and negative pixels
(Taha & Hanbury 2015, doi:10.1186/s12880-015-0068-x):

    Dice = 2 TP / (2 TP + FP + FN)        sensitivity = TP / (TP + FN)
    IoU  = TP / (TP + FP + FN)            specificity = TN / (TN + FP)
    precision = TP / (TP + FP)            volume difference = (FP - FN) / (TP + FN)

The metrics of a patient come from the sums over all slices of the patient, the stacked volume: a
slice with little foreground has little weight. They are not the mean over the slices.

Empty masks: if the ground truth has no foreground, Dice and IoU are 1 if the prediction has none
either and 0 otherwise, so that an empty patient counts and a false detection costs. Sensitivity and
volume difference are then undefined, and so are specificity if the ground truth has no background
and precision if the prediction has no foreground: None.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ConfusionCounts:
    """Pixels by prediction and ground truth; the counts of slices add up to those of a volume."""

    tp: int = 0
    """True positives: predicted foreground."""
    fp: int = 0
    """False positives: background predicted as foreground."""
    fn: int = 0
    """False negatives: foreground predicted as background."""
    tn: int = 0
    """True negatives: predicted background."""

    def __add__(self, other: "ConfusionCounts") -> "ConfusionCounts":
        return ConfusionCounts(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def empty(self) -> bool:
        """Whether the ground truth has no foreground."""
        return self.tp + self.fn == 0

    @property
    def predicted_empty(self) -> bool:
        """Whether the prediction has no foreground."""
        return self.tp + self.fp == 0

    @property
    def dice(self) -> float:
        """Dice coefficient, 0 to 1; 1 where both masks are empty."""
        denominator = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / denominator if denominator else 1.0

    @property
    def iou(self) -> float:
        """Intersection over union, 0 to 1; 1 where both masks are empty."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else 1.0

    @property
    def precision(self) -> float | None:
        """Fraction of the prediction that is foreground; None if it is empty."""
        return None if self.predicted_empty else self.tp / (self.tp + self.fp)

    @property
    def volume_difference(self) -> float | None:
        """Predicted minus true foreground as a fraction of the true one; None without it.

        -1 for an empty prediction, 0 for equal volumes, without an upper limit.
        """
        return None if self.empty else (self.fp - self.fn) / (self.tp + self.fn)

    @property
    def sensitivity(self) -> float | None:
        """Fraction of the foreground that is predicted; None without foreground."""
        return None if self.empty else self.tp / (self.tp + self.fn)

    @property
    def specificity(self) -> float | None:
        """Fraction of the background that is not predicted; None without background."""
        background = self.tn + self.fp
        return self.tn / background if background else None


def class_counts(
    prediction: np.ndarray, mask: np.ndarray, num_classes: int
) -> tuple[ConfusionCounts, ...]:
    """The counts of each class, of a prediction and a mask of class indices of one shape."""
    return tuple(
        confusion_counts(prediction == index, mask == index) for index in range(1, num_classes + 1)
    )


def pooled_counts(counts: Iterable[ConfusionCounts]) -> ConfusionCounts:
    """The sum of the counts of classes, whose Dice is that of all their pixels together."""
    return sum(counts, ConfusionCounts())


def confusion_counts(prediction: ArrayLike, mask: ArrayLike) -> ConfusionCounts:
    """The counts of a prediction and a mask of one shape; values other than 0 are foreground."""
    y_pred, y_true = np.asarray(prediction) != 0, np.asarray(mask) != 0
    if y_pred.shape != y_true.shape:
        raise ValueError(f"masks of shapes {y_pred.shape} and {y_true.shape} cannot be compared")
    tp = int(np.count_nonzero(y_pred & y_true))
    fp = int(np.count_nonzero(y_pred)) - tp
    fn = int(np.count_nonzero(y_true)) - tp
    return ConfusionCounts(tp, fp, fn, y_pred.size - tp - fp - fn)
