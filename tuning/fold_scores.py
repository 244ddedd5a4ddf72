"""The metrics of a trial that is trained on several folds: the means over them."""

from collections.abc import Sequence
from statistics import fmean

from trainer.training.loggers.history import EpochMetrics


def mean_history(histories: Sequence[Sequence[EpochMetrics]]) -> list[EpochMetrics]:
    """The means over the folds, of the epochs that all of them have; seconds are added up."""
    means: list[EpochMetrics] = []
    for rows in zip(*histories, strict=False):
        mean = {name: fmean(row[name] for row in rows) for name in rows[0]}
        means.append({**mean, "seconds": sum(row["seconds"] for row in rows)})
    return means
