"""The decisions of the training callback: invalid metrics, and the end of training."""

import pytest

from contract.config import Train
from contract.errors import TrainingError
from trainer.training.callbacks import TrainingCallback, check_finite_metrics, is_finished


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_ends_the_training(value: float) -> None:
    metrics = {"epoch": 3.0, "loss": value, "val_loss": 0.1}
    with pytest.raises(TrainingError, match=rf"loss is {value} after epoch 3.*learning_rate"):
        check_finite_metrics(metrics)


def test_a_training_is_finished_after_its_epochs_or_an_early_stop() -> None:
    train = Train(epochs=4, patience=2)
    rising = [{"epoch": n + 1.0, "val_dice_coef": n / 10} for n in range(4)]
    falling = [{"epoch": n + 1.0, "val_dice_coef": -n / 10} for n in range(3)]
    assert not is_finished(rising[:3], train)
    assert is_finished(rising, train)
    assert is_finished(falling, train)
    assert not is_finished([], train)


def test_progress_counts_the_steps_of_earlier_epochs() -> None:
    reports: list[tuple[object, ...]] = []
    history = [{"epoch": 1.0, "val_dice_coef": 0.1}]
    callback = TrainingCallback(
        Train(epochs=3),
        history,
        steps_per_epoch=5,
        world_size=2,
        report_progress=lambda *progress: reports.append(progress),
    )
    callback.on_train_batch_end(1, {"loss": 0.5})
    callback.on_train_end()
    assert reports == [(7, 15, "loss 0.2500"), (15, 15, "exporting the bundle")]
