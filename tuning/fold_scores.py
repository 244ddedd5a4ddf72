"""The metrics of a trial that is trained on several folds: the means over them."""

from collections.abc import Sequence
from statistics import fmean

from contract.config import Train
from trainer.components import lr_schedule
from trainer.training.loggers.history import EpochMetrics


def mean_history(histories: Sequence[Sequence[EpochMetrics]], train: Train) -> list[EpochMetrics]:
    """The means over the folds, of the epochs that all of them have; seconds are added up.

    A fold that has stopped early counts with its last epoch in the epochs after it.
    """
    unfinished = [len(each) for each in histories if not _is_finished(each, train)]
    count = min(unfinished, default=max(map(len, histories)))
    means: list[EpochMetrics] = []
    for index in range(count):
        rows = [history[min(index, len(history) - 1)] for history in histories]
        mean = {name: fmean(row[name] for row in rows) for name in rows[0]}
        seconds = sum(history[index]["seconds"] for history in histories if index < len(history))
        means.append({**mean, "epoch": float(index + 1), "seconds": seconds})
    return means


def _is_finished(history: Sequence[EpochMetrics], train: Train) -> bool:
    return lr_schedule.is_finished([metrics[train.monitor] for metrics in history], train)
