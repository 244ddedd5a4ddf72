"""Scores of slices without files."""

from contract.confusion import ConfusionCounts
from trainer.data.dataset_index import SliceRecord
from trainer.evaluation.scores import SliceScore


def case(name: str, patient: str = "p") -> SliceRecord:
    """The record of a slice."""
    return SliceRecord(name, patient, "test", f"{name}.png", f"{name}-mask.png", 4, 4, (0.1,))


def score(name: str, patient: str, tp: int, fp: int, fn: int) -> SliceScore:
    """The score of a slice with one class and 1000 true negatives."""
    return SliceScore(case(name, patient), (ConfusionCounts(tp, fp, fn, 1000),))
