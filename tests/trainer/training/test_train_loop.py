"""What a worker decides by itself."""

import numpy as np
import pytest

from contract.config import Train
from contract.errors import TrainingError
from trainer.data.cache import CachedSplit
from trainer.training import train_loop


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_ends_the_training(value: float) -> None:
    row = {"epoch": 3.0, "loss": value, "val_loss": 0.1}
    with pytest.raises(TrainingError, match=r"loss is no number after epoch 3.*learning_rate"):
        train_loop.check_finite_metrics(row)


def test_a_training_is_finished_after_its_epochs_or_an_early_stop() -> None:
    train = Train(epochs=4, patience=2)
    rising = [{"epoch": n + 1.0, "val_dice_coef": n / 10} for n in range(4)]
    falling = [{"epoch": n + 1.0, "val_dice_coef": -n / 10} for n in range(3)]
    assert not train_loop.is_finished(rising[:3], train)
    assert train_loop.is_finished(rising, train)
    assert train_loop.is_finished(falling, train)
    assert not train_loop.is_finished([], train)


def test_drawn_slices_hold_foreground_and_are_spread_evenly() -> None:
    masks = np.zeros((20, 8, 8), np.uint8)
    masks[5:15, 2, 2] = 1
    valid = CachedSplit(np.zeros((20, 8, 8, 1), np.uint8), masks)
    assert list(train_loop.select_preview_slices(valid, 3)) == [5, 9, 14]
    assert len(train_loop.select_preview_slices(valid, 50)) == 10
    assert len(train_loop.select_preview_slices(valid, 0)) == 0
