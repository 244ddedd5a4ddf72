"""The score of a trial by folds is the mean of the epochs that all folds have."""

import pytest

from contract.config import Train
from trainer.training.loggers.history import EpochMetrics
from tuning.fold_scores import mean_history

TRAIN = Train(epochs=4, patience=2)


def fold(*scores: float) -> list[EpochMetrics]:
    return [
        {"epoch": float(epoch), "val_dice_coef": score, "seconds": 2.0}
        for epoch, score in enumerate(scores, 1)
    ]


def test_an_epoch_counts_when_all_folds_have_it() -> None:
    means = mean_history([fold(0.2, 0.4, 0.5), fold(0.4, 0.8)], TRAIN)
    assert [each["val_dice_coef"] for each in means] == pytest.approx([0.3, 0.6])
    assert [(each["epoch"], each["seconds"]) for each in means] == [(1.0, 4.0), (2.0, 4.0)]
    assert mean_history([fold(0.2), fold()], TRAIN) == []


def test_a_fold_that_stopped_early_counts_with_its_last_epoch() -> None:
    means = mean_history([fold(0.8, 0.6, 0.4), fold(0.1, 0.2, 0.3, 0.6)], TRAIN)
    assert [each["val_dice_coef"] for each in means] == pytest.approx([0.45, 0.4, 0.35, 0.5])
    assert means[-1]["seconds"] == 2.0
