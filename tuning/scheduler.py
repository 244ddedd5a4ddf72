"""Our side of Ray Tune: which trial comes next, when one is stopped, what is recorded.

Ray Tune starts the processes, passes their results on and ends them. What is known of the trials
is in the ledger; Tune's own record of a sweep is not used.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from contract.config import Config
from contract.errors import ConfigError, UserError
from trainer.components import lr_schedule
from tuning import asha, search_space
from tuning.trainable import run_name, trial_config
from tuning.trial_store import EpochMetrics, Trial, TrialStore, is_trained, with_epoch

log = logging.getLogger(__name__)


class TrialScheduler:
    """The decisions of a sweep, as functions of its ledger."""

    def __init__(self, config: Config, ledger: TrialStore, parallel: int) -> None:
        """parallel: trials at once at most."""
        self.config, self.store, self.max_concurrent = config, ledger, parallel
        self.live: dict[str, int] = {}
        """Trials that Tune has in hand: its name for each, and its number."""
        self.error: UserError | None = None
        """What ended the sweep while Tune ran it."""
        self.exhausted = False
        """Whether the space holds no values that were not tried."""

    @contextmanager
    def capture_errors(self) -> Iterator[None]:
        """Keep an error of the block, as Tune passes on its text alone."""
        try:
            yield
        except UserError as error:
            self.error = error
            raise

    def next_trial(self) -> Trial | None:
        """A trial to go on with, or a new one; None where none is to be started now."""
        if self.is_out_of_time():
            return None
        return (
            self._next_interrupted()
            or self._next_promoted()
            or self._next_sampled()
            or self._next_promoted(idle=True)
        )

    def has_more_trials(self) -> bool:
        """Whether the trials in hand may leave one to go on with."""
        return bool(self.live) and self.config.sweep.early_stopping and not self.is_out_of_time()

    def should_stop(self, number: int, row: EpochMetrics) -> bool:
        """Whether early stopping ends a trial after an epoch, of which the ledger may not know yet.

        Where a trial that has reached its rung goes on, it is granted the epochs to the next one.
        """
        trial = with_epoch(self.store[number], row, self.store.now())
        if not trial.budget_epochs <= row["epoch"] < self.config.train.epochs:
            return False
        waiting = trial.model_copy(update={"state": "stopped"})
        others = [one for one in self.store.trials if one.number != number]
        chosen = asha.promotable([*others, waiting], self.config)
        all_drawn = self.exhausted or len(others) + 1 >= self.config.sweep.num_samples
        if not chosen and all_drawn and not self._next_interrupted():
            chosen = asha.promotable([*others, waiting], self.config, idle=True)
        if waiting not in chosen:
            return True
        self.store.extend_budget(number, asha.next_rung(trial.budget_epochs, self.config))
        return False

    def is_out_of_time(self) -> bool:
        """Whether the time budget is spent."""
        budget = self.config.sweep.time_budget_s
        return budget is not None and self.store.now() >= budget

    def record_loss(self, number: int) -> None:
        """Take note that a trial's process is gone; it is started again a few times."""
        allowed = self.config.train.max_failures
        if self.store.record_loss(number).losses > allowed:
            self.store.fail(
                number,
                f"its process was lost more than train.max_failures = {allowed} times, "
                "as happens where memory runs out.",
            )

    def mark_orphaned(self) -> None:
        """Take the trials for lost that Tune, which has ended, never told the end of."""
        while self.live:
            _, number = self.live.popitem()
            self.record_loss(number)

    def finish_trial(self, number: int) -> None:
        """Take note that a trial is over, and of why."""
        trial = self.store[number]
        if trial.state == "failed":
            return
        if is_trained(trial, self._config_of(trial).train):
            self.store.finish(number, "finished")
        else:
            self.store.finish(number, "out of time" if self.is_out_of_time() else "stopped")

    def has_interrupted(self) -> bool:
        """Whether a trial was interrupted; those that time has run out for are settled first."""
        running = [trial for trial in self.store.trials if trial.state == "running"]
        if self.is_out_of_time():
            for trial in running:
                self.finish_trial(trial.number)
            return False
        return bool(running)

    def _next_interrupted(self) -> Trial | None:
        """A trial that lost its process or its driver, or, with a larger budget now, its time."""
        live = set(self.live.values())
        for trial in self.store.trials:
            if trial.state == "running" and trial.number not in live:
                return trial
            if trial.state == "out of time":
                return self.store.extend_budget(trial.number, trial.budget_epochs)
        return None

    def _next_promoted(self, idle: bool = False) -> Trial | None:
        """The best of the stopped trials that are to go on."""
        for trial in asha.promotable(self.store.trials, self.config, idle):
            granted = asha.next_rung(trial.budget_epochs, self.config)
            return self.store.extend_budget(trial.number, granted)
        return None

    def _next_sampled(self) -> Trial | None:
        """A new trial; one whose settings do not go together is recorded and passed over."""
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
            name, granted = run_name(self.config, number), asha.first_rung(self.config)
            trial = self.store.create(number, name, values, granted)
            try:
                self._config_of(trial)
            except ConfigError as error:
                self.store.fail(number, str(error))
                continue
            return trial
        return None

    def _suggest(self, number: int) -> dict[str, Any] | None:
        sweep, monitor = self.config.sweep, self.config.train.monitor
        higher = lr_schedule.score_sign(monitor) > 0
        past = [
            search_space.Observation(
                trial.values,
                trial.state,
                trial.scores(monitor),
                best[monitor] if (best := trial.best(monitor)) else None,
            )
            for trial in self.store.trials
        ]
        direction = "maximize" if higher else "minimize"
        return search_space.suggest(
            sweep.space, sweep.search_algorithm, direction, self.config.run.seed, number, past
        )

    def _config_of(self, trial: Trial) -> Config:
        return trial_config(self.config, trial.number, trial.values)


class SweepSearcher(Searcher):
    """Tells Tune which trial to start next."""

    def __init__(self, steering: TrialScheduler) -> None:
        super().__init__()
        self._steering = steering

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Say that the limit is kept here; Tune's own loses count of lost trials."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The order for a trial, None for later, FINISHED where no more is to be started.

        After FINISHED, Tune lets go of the processes that have nothing to do.
        """
        steering = self._steering
        if len(steering.live) >= steering.max_concurrent:
            return None
        with steering.capture_errors():
            trial = steering.next_trial()
        if trial is None:
            return None if steering.has_more_trials() else Searcher.FINISHED
        steering.live[trial_id] = trial.number
        return {"number": trial.number, "values": trial.values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: Notes hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is all the state there is."""


class TrialRecorder(Callback):
    """Records what Tune tells of the trials."""

    def __init__(self, steering: TrialScheduler, tell: Callable[[], None]) -> None:
        """tell: called after each record."""
        self._steering, self._tell = steering, tell

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Look for trials whose process was lost; not all losses are told by a call."""
        for trial in trials:
            if trial.status == TuneTrial.ERROR and trial.trial_id in self._steering.live:
                with self._recording():
                    self._steering.record_loss(self._steering.live.pop(trial.trial_id))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Record an epoch or a failure."""
        number = self._steering.live[trial.trial_id]
        with self._recording():
            if "failed" in result:
                self._steering.store.fail(number, result["failed"], result["trace"])
            elif "row" in result:
                self._steering.store.log_epoch(number, result["row"])

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Record the end of a trial."""
        with self._recording():
            self._steering.finish_trial(self._steering.live.pop(trial.trial_id))

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record, then tell of what was recorded."""
        with self._steering.capture_errors():
            yield
        self._tell()


class TrialStopper(Stopper):
    """Ends a trial after an epoch: the time budget is spent, or early stopping says so."""

    def __init__(self, steering: TrialScheduler) -> None:
        self._steering = steering

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends after this epoch."""
        steering = self._steering
        if steering.is_out_of_time():
            return True
        with steering.capture_errors():
            return "row" in result and steering.should_stop(steering.live[trial_id], result["row"])

    def stop_all(self) -> bool:
        """Never: an epoch that was begun is finished."""
        return False
