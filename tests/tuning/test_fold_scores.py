"""The score of a trial by folds is the mean of the epochs that all folds have."""

import pytest

from trainer.training.loggers.history import EpochMetrics
from tuning.fold_scores import mean_history


def fold(*scores: float) -> list[EpochMetrics]:
    return [
        {"epoch": float(epoch), "val_dice_coef": score, "seconds": 2.0}
        for epoch, score in enumerate(scores, 1)
    ]


def test_an_epoch_counts_when_all_folds_have_it() -> None:
    means = mean_history([fold(0.2, 0.4, 0.5), fold(0.4, 0.8)])
    assert [each["val_dice_coef"] for each in means] == pytest.approx([0.3, 0.6])
    assert [(each["epoch"], each["seconds"]) for each in means] == [(1.0, 4.0), (2.0, 4.0)]
    assert mean_history([fold(0.2), fold()]) == []
