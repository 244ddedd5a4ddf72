"""The decisions of the training callback: invalid metrics, and the end of training."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from contract.config import Train
from contract.errors import TrainingError
from trainer.components.optimizers import build_optimizer
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
        report_progress=lambda *progress: reports.append(progress),
    )
    for batch in (1, 2, 4):
        callback.on_train_batch_end(batch, {"loss": 0.5})
    callback.on_train_end()
    # The first step and the last of an epoch are always reported, others not at once after one.
    assert reports == [
        (7, 15, "loss 0.5000"),
        (10, 15, "loss 0.5000"),
        (15, 15, "exporting the bundle"),
    ]


def test_the_logs_of_a_step_stay_on_the_device() -> None:
    seen: list[object] = []

    class Recorder(TrainingCallback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            seen.append((logs or {})["loss"])

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            """Record nothing."""

    model = keras.Sequential([keras.layers.Dense(1, input_shape=(1,))])
    model.compile(build_optimizer(Train()), "mse")
    recorder = Recorder(Train(epochs=1), [], steps_per_epoch=2)
    model.fit(np.ones((4, 1)), np.ones((4, 1)), 2, epochs=1, verbose=0, callbacks=[recorder])
    assert len(seen) == 2
    assert all(isinstance(loss, tf.Tensor) for loss in seen)
