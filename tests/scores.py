"""Scores of slices without files."""

from contract.confusion import ConfusionCounts
from trainer.data.dataset_index import SliceRecord
from trainer.evaluation.scores import SliceScore
from trainer.evaluation.surface_distances import SurfaceScore


def case(name: str, patient: str = "p") -> SliceRecord:
    """The record of a slice."""
    return SliceRecord(name, patient, "test", f"{name}.png", f"{name}-mask.png", 4, 4, (0.1,))


def score(name: str, patient: str, tp: int, fp: int, fn: int) -> SliceScore:
    """The score of a slice with one class and 1000 true negatives."""
    return SliceScore(case(name, patient), (ConfusionCounts(tp, fp, fn, 1000),))


def surface_score(surface_dice: float, hd95: float | None = 1.5) -> SurfaceScore:
    """The surface metrics of a class of which neither mask is empty."""
    return SurfaceScore(surface_dice, hd95, truth_empty=False, prediction_empty=False, unmatched=0)
