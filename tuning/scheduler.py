"""The decisions of a sweep: which trial runs next, and when a trial pauses.

Ray Tune starts the processes, passes their results on and ends them (tuning/tune_callbacks.py).
The state of the trials is in the trial store; Ray Tune's own record of a sweep is not used.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from contract.config import Config
from contract.errors import ConfigError, UserError
from trainer.components import lr_schedule
from trainer.training.loggers.history import EpochMetrics
from tuning import asha, search_space
from tuning.trainable import run_name, trial_config
from tuning.trial_store import Trial, TrialStore, is_trained, with_epoch

log = logging.getLogger(__name__)


class SweepScheduler:
    """Decides which trial runs next and when it pauses, as functions of the trial store."""

    def __init__(self, config: Config, store: TrialStore, max_concurrent: int) -> None:
        self.config, self.store, self.max_concurrent = config, store, max_concurrent
        self.live: dict[str, int] = {}
        """The trials that Ray Tune is running: its trial id, and the number of the trial."""
        self.error: UserError | None = None
        """The error that ended the sweep while Ray Tune ran it."""
        self.exhausted = False
        """Whether every combination of values in the search space has been tried."""

    @contextmanager
    def capture_errors(self) -> Iterator[None]:
        """Keep a UserError of the block, because Ray Tune passes on only its text."""
        try:
            yield
        except UserError as error:
            self.error = error
            raise

    def next_trial(self) -> Trial | None:
        """The trial to continue, or a new one; None if none is to be started now."""
        if self.is_out_of_time():
            return None
        return (
            self._next_interrupted()
            or self._next_promoted()
            or self._next_sampled()
            or self._next_promoted(idle=True)
        )

    def has_more_trials(self) -> bool:
        """Whether a running trial may leave one that can be promoted."""
        return bool(self.live) and self.config.sweep.early_stopping and not self.is_out_of_time()

    def should_stop(self, number: int, epochs: Sequence[EpochMetrics]) -> bool:
        """Whether early stopping pauses a trial after some epochs.

        The trial store may not contain these epochs yet. If the trial has reached its rung and is
        promoted, its budget is extended to the next rung.
        """
        sweep, train = self.config.sweep, self.config.train
        trial = self.store[number]
        for metrics in epochs:
            trial = with_epoch(trial, metrics, self.store.now())
        if not trial.budget_epochs <= epochs[-1]["epoch"] < train.epochs:
            return False
        paused = trial.model_copy(update={"status": "paused"})
        others = [other for other in self.store.trials if other.number != number]
        promoted = asha.promotable([*others, paused], sweep, train)
        all_sampled = self.exhausted or len(others) + 1 >= sweep.num_samples
        if not promoted and all_sampled and not self._next_interrupted():
            promoted = asha.promotable([*others, paused], sweep, train, idle=True)
        if paused not in promoted:
            return True
        self.store.extend_budget(number, asha.next_rung(trial.budget_epochs, sweep, train))
        return False

    def is_out_of_time(self) -> bool:
        """Whether sweep.time_budget_s is used up."""
        budget = self.config.sweep.time_budget_s
        return budget is not None and self.store.now() >= budget

    def record_loss(self, number: int) -> None:
        """Record that the process of a trial was lost; it is restarted train.max_failures times."""
        limit = self.config.train.max_failures
        if self.store.record_loss(number).lost_processes > limit:
            self.store.fail(
                number,
                f"its process was lost more than train.max_failures = {limit} times, "
                "for example because memory ran out.",
            )

    def mark_orphaned(self) -> None:
        """Record a loss for trials whose end Ray Tune, which has ended, never reported."""
        while self.live:
            _, number = self.live.popitem()
            self.record_loss(number)

    def finish_trial(self, number: int) -> None:
        """Record that a trial has ended or paused, and why."""
        trial = self.store[number]
        if trial.status == "failed":
            return
        if is_trained(trial, self._trial_config(trial).train):
            self.store.finish(number, "completed")
        else:
            self.store.finish(number, "out of time" if self.is_out_of_time() else "paused")

    def has_interrupted(self) -> bool:
        """Whether a trial was interrupted; first closes those whose time budget is used up."""
        running = [trial for trial in self.store.trials if trial.status == "running"]
        if self.is_out_of_time():
            for trial in running:
                self.finish_trial(trial.number)
            return False
        return bool(running)

    def _next_interrupted(self) -> Trial | None:
        """A trial that lost its process or driver, or that a larger time budget lets continue."""
        live = set(self.live.values())
        for trial in self.store.trials:
            if trial.status == "running" and trial.number not in live:
                return trial
            if trial.status == "out of time":
                return self.store.extend_budget(trial.number, trial.budget_epochs)
        return None

    def _next_promoted(self, idle: bool = False) -> Trial | None:
        """The best of the paused trials that may continue."""
        sweep, train = self.config.sweep, self.config.train
        for trial in asha.promotable(self.store.trials, sweep, train, idle):
            rung = asha.next_rung(trial.budget_epochs, sweep, train)
            return self.store.extend_budget(trial.number, rung)
        return None

    def _next_sampled(self) -> Trial | None:
        """A new trial; one whose values are incompatible is recorded as failed and skipped."""
        if self.exhausted:
            return None
        taken = {trial.number for trial in self.store.trials}
        for number in range(1, self.config.sweep.num_samples + 1):
            if number in taken:
                continue
            values = self._suggest(number)
            if values is None:
                self.exhausted = True
                log.info("every combination of sweep.space has been tried")
                return None
            rung = asha.first_rung(self.config.sweep, self.config.train)
            trial = self.store.create(number, run_name(self.config, number), values, rung)
            try:
                self._trial_config(trial)
            except ConfigError as error:
                self.store.fail(number, str(error))
                continue
            return trial
        return None

    def _suggest(self, number: int) -> dict[str, Any] | None:
        monitor = self.config.train.monitor
        history = [
            search_space.Observation(
                trial.values,
                trial.status,
                trial.scores(monitor),
                best[monitor] if (best := trial.best_epoch(monitor)) else None,
            )
            for trial in self.store.trials
        ]
        direction = "maximize" if lr_schedule.score_sign(monitor) > 0 else "minimize"
        return search_space.suggest(
            self.config.sweep, direction, self.config.run.seed, number, history
        )

    def _trial_config(self, trial: Trial) -> Config:
        return trial_config(self.config, trial.number, trial.values)
