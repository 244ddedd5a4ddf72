"""The Keras callback of a training: learning rate, progress, checks, logging, early stopping."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import tf_keras as keras

from contract.config import Train
from contract.errors import TrainingError
from contract.progress import ProgressCallback, no_progress
from trainer.components import lr_schedule
from trainer.components.encoder_rate import set_encoder_lr_factor
from trainer.training.loggers.history import EpochMetrics
from trainer.training.loggers.run_logger import RunLogger
from trainer.training.model_state import StateReader, WeightAverages
from trainer.training.watchdog import Watchdog

# Reading the loss waits for the device.
_REPORT_INTERVAL_S = 0.2


def ignore_epoch(metrics: EpochMetrics) -> None:
    """Ignore the metrics of an epoch; the default without Ray."""


def ignore_stall(seconds: float) -> None:
    """Ignore a stall; the default without Ray."""


class TrainingCallback(keras.callbacks.Callback):
    """Sets the learning rate before each step; checks, logs and reports each epoch."""

    def __init__(
        self,
        train: Train,
        history: Sequence[EpochMetrics],
        steps_per_epoch: int,
        report_epoch: Callable[[EpochMetrics], None] = ignore_epoch,
        report_progress: ProgressCallback = no_progress,
        run_logger: RunLogger | None = None,
        report_stall: Callable[[float], None] = ignore_stall,
    ) -> None:
        """Args:
        train: The training settings.
        history: The metrics of the epochs before the one to resume with.
        steps_per_epoch: Training steps of an epoch.
        report_epoch: Called on every rank after each epoch; may end the training by raising.
        report_progress: Called after each step.
        run_logger: Records each epoch; only rank 0 has one.
        report_stall: Called with the seconds without a step before the watchdog ends the process.
        """
        super().__init__()
        # Keras then passes tensors and does not wait for the device after every step to read them.
        # Not a public name: a Keras without it passes numbers, which a test would notice.
        self._supports_tf_logs = True
        self.train_settings, self.run_logger = train, run_logger
        self.history = list(history)
        self.steps_per_epoch = steps_per_epoch
        self.report_epoch, self.report_progress = report_epoch, report_progress
        self.watchdog = Watchdog(train.stall_timeout_s, report_stall)
        self.stop_reason: BaseException | None = None
        """The exception by which report_epoch ended the training."""
        self.epoch_start, self._last_report = time.monotonic(), -math.inf

    @property
    def total_steps(self) -> int:
        """Training steps of all epochs."""
        return self.train_settings.epochs * self.steps_per_epoch

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Prepare to read the state of the model."""
        self._state_reader = StateReader(self.model)
        self._averages = WeightAverages(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock of the epoch."""
        self.epoch_start = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Set the learning rate of this step, and that of the encoder."""
        self.model.optimizer.learning_rate = self._learning_rate(batch)
        if self.train_settings.has_encoder_rate:
            factor = lr_schedule.encoder_lr_factor(self._progress(batch), self.train_settings)
            set_encoder_lr_factor(self.model, factor)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Report a finished step, at most once per interval and at the end of an epoch."""
        self.watchdog.beat()
        now, is_last = time.monotonic(), batch + 1 == self.steps_per_epoch
        if self.report_progress is no_progress or (
            now - self._last_report < _REPORT_INTERVAL_S and not is_last
        ):
            return
        self._last_report = now
        done = len(self.history) * self.steps_per_epoch + batch + 1
        loss = float((logs or {})["loss"])
        self.report_progress(done, self.total_steps, f"loss {loss:.4f}")

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Validate the averages of the weights, if there are any, until on_epoch_end."""
        self._averages.exchange()

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Validation steps are progress too."""
        self.watchdog.beat()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Check the epoch, log it (rank 0), report it (every rank), and stop early if due."""
        metrics = {"epoch": float(epoch + 1)}
        metrics |= {name: float(value) for name, value in (logs or {}).items()}
        metrics["learning_rate"] = self._learning_rate(self.steps_per_epoch - 1)
        metrics["seconds"] = time.monotonic() - self.epoch_start
        check_finite_metrics(metrics)
        self.history.append(metrics)
        # On every rank, because it may be a collective.
        state = self._state_reader.read()
        self._averages.exchange()
        if self.run_logger:
            self.run_logger.log_epoch(state, self.history)
        self.model.stop_training = is_finished(self.history, self.train_settings)
        try:
            # A paused trial waits in this call until its process has another trial to train.
            with self.watchdog.paused():
                self.report_epoch(metrics)
        except BaseException as error:
            # Raised after Keras has finished its own bookkeeping, so that the network can be
            # used by the next training.
            self.stop_reason = error
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Report what the seconds after the last step are used for."""
        self.report_progress(self.total_steps, self.total_steps, "exporting the bundle")

    def _progress(self, batch: int) -> float:
        """Epochs done before a step, as a fraction."""
        return len(self.history) + batch / self.steps_per_epoch

    def _learning_rate(self, batch: int) -> float:
        train = self.train_settings
        scores = [metrics[train.monitor] for metrics in self.history]
        return lr_schedule.learning_rate(self._progress(batch), scores, train)


def is_finished(history: Sequence[EpochMetrics], train: Train) -> bool:
    """Whether nothing is left to train: all epochs are done, or training stopped early."""
    return lr_schedule.is_finished([metrics[train.monitor] for metrics in history], train)


def check_finite_metrics(metrics: EpochMetrics) -> None:
    """Raise TrainingError if a metric of an epoch is NaN or infinite."""
    invalid = [name for name, value in metrics.items() if not np.isfinite(value)]
    if invalid:
        raise TrainingError(
            f"{invalid[0]} is {metrics[invalid[0]]} after epoch {metrics['epoch']:.0f}: lower "
            'train.learning_rate, set train.clip_norm, or use train.precision = "float32".'
        )
