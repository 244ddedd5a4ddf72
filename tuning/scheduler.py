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
from tuning.trial_store import Ledger, Row, Trial, all_trained, with_row

log = logging.getLogger(__name__)


class Steering:
    """The decisions of a sweep, as functions of its ledger."""

    def __init__(self, config: Config, ledger: Ledger, parallel: int) -> None:
        """parallel: trials at once at most."""
        self.config, self.ledger, self.parallel = config, ledger, parallel
        self.live: dict[str, int] = {}
        """Trials that Tune has in hand: its name for each, and its number."""
        self.fault: UserError | None = None
        """What ended the sweep while Tune ran it."""
        self.exhausted = False
        """Whether the space holds no values that were not tried."""

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep an error of the block, as Tune passes on its text alone."""
        try:
            yield
        except UserError as error:
            self.fault = error
            raise

    def next_trial(self) -> Trial | None:
        """A trial to go on with, or a new one; None where none is to be started now."""
        if self.out_of_time():
            return None
        return self._interrupted() or self._promoted() or self._drawn() or self._promoted(idle=True)

    def may_start_more(self) -> bool:
        """Whether the trials in hand may leave one to go on with."""
        return bool(self.live) and self.config.sweep.early_stopping and not self.out_of_time()

    def stops(self, number: int, row: Row) -> bool:
        """Whether early stopping ends a trial after an epoch, of which the ledger may not know yet.

        Where a trial that has reached its rung goes on, it is granted the epochs to the next one.
        """
        trial = with_row(self.ledger[number], row, self.ledger.now())
        if not trial.granted <= row["epoch"] < self.config.train.epochs:
            return False
        waiting = trial.model_copy(update={"state": "stopped"})
        others = [one for one in self.ledger.trials if one.number != number]
        chosen = asha.promotable([*others, waiting], self.config)
        all_drawn = self.exhausted or len(others) + 1 >= self.config.sweep.trials
        if not chosen and all_drawn and not self._interrupted():
            chosen = asha.promotable([*others, waiting], self.config, idle=True)
        if waiting not in chosen:
            return True
        self.ledger.grant(number, asha.next_grant(trial.granted, self.config))
        return False

    def out_of_time(self) -> bool:
        """Whether the time budget is spent."""
        budget = self.config.sweep.time_budget_s
        return budget is not None and self.ledger.now() >= budget

    def lost(self, number: int) -> None:
        """Take note that a trial's process is gone; it is started again a few times."""
        allowed = self.config.train.max_failures
        if self.ledger.lose(number).lost > allowed:
            self.ledger.fail(
                number,
                f"its process was lost more than train.max_failures = {allowed} times, "
                "as happens where memory runs out.",
            )

    def left_behind(self) -> None:
        """Take the trials for lost that Tune, which has ended, never told the end of."""
        while self.live:
            _, number = self.live.popitem()
            self.lost(number)

    def ended(self, number: int) -> None:
        """Take note that a trial is over, and of why."""
        trial = self.ledger[number]
        if trial.state == "failed":
            return
        if all_trained(trial, self._config_of(trial).train):
            self.ledger.end(number, "finished")
        else:
            self.ledger.end(number, "out of time" if self.out_of_time() else "stopped")

    def unfinished(self) -> bool:
        """Whether a trial was interrupted; those that time has run out for are settled first."""
        running = [trial for trial in self.ledger.trials if trial.state == "running"]
        if self.out_of_time():
            for trial in running:
                self.ended(trial.number)
            return False
        return bool(running)

    def _interrupted(self) -> Trial | None:
        """A trial that lost its process or its driver, or, with a larger budget now, its time."""
        live = set(self.live.values())
        for trial in self.ledger.trials:
            if trial.state == "running" and trial.number not in live:
                return trial
            if trial.state == "out of time":
                return self.ledger.grant(trial.number, trial.granted)
        return None

    def _promoted(self, idle: bool = False) -> Trial | None:
        """The best of the stopped trials that are to go on."""
        for trial in asha.promotable(self.ledger.trials, self.config, idle):
            granted = asha.next_grant(trial.granted, self.config)
            return self.ledger.grant(trial.number, granted)
        return None

    def _drawn(self) -> Trial | None:
        """A new trial; one whose settings do not go together is recorded and passed over."""
        if self.exhausted:
            return None
        taken = {trial.number for trial in self.ledger.trials}
        for number in range(1, self.config.sweep.trials + 1):
            if number in taken:
                continue
            values = self._draw(number)
            if values is None:
                self.exhausted = True
                log.info("every combination of sweep.space has been tried")
                return None
            name, granted = run_name(self.config, number), asha.first_grant(self.config)
            trial = self.ledger.begin(number, name, values, granted)
            try:
                self._config_of(trial)
            except ConfigError as error:
                self.ledger.fail(number, str(error))
                continue
            return trial
        return None

    def _draw(self, number: int) -> dict[str, Any] | None:
        sweep, monitor = self.config.sweep, self.config.train.monitor
        higher = lr_schedule.direction(monitor) > 0
        past = [
            search_space.Past(
                trial.values,
                trial.state,
                trial.scores(monitor),
                best[monitor] if (best := trial.best(monitor)) else None,
            )
            for trial in self.ledger.trials
        ]
        direction = "maximize" if higher else "minimize"
        return search_space.draw(
            sweep.space, sweep.search, direction, self.config.run.seed, number, past
        )

    def _config_of(self, trial: Trial) -> Config:
        return trial_config(self.config, trial.number, trial.values)


class Draws(Searcher):
    """Tells Tune which trial to start next."""

    def __init__(self, steering: Steering) -> None:
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
        if len(steering.live) >= steering.parallel:
            return None
        with steering.recording():
            trial = steering.next_trial()
        if trial is None:
            return None if steering.may_start_more() else Searcher.FINISHED
        steering.live[trial_id] = trial.number
        return {"number": trial.number, "values": trial.values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: Notes hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is all the state there is."""


class Notes(Callback):
    """Records what Tune tells of the trials."""

    def __init__(self, steering: Steering, tell: Callable[[], None]) -> None:
        """tell: called after each record."""
        self._steering, self._tell = steering, tell

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Look for trials whose process was lost; not all losses are told by a call."""
        for trial in trials:
            if trial.status == TuneTrial.ERROR and trial.trial_id in self._steering.live:
                with self._recording():
                    self._steering.lost(self._steering.live.pop(trial.trial_id))

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
                self._steering.ledger.fail(number, result["failed"], result["trace"])
            elif "row" in result:
                self._steering.ledger.note(number, result["row"])

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Record the end of a trial."""
        with self._recording():
            self._steering.ended(self._steering.live.pop(trial.trial_id))

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record, then tell of what was recorded."""
        with self._steering.recording():
            yield
        self._tell()


class Ends(Stopper):
    """Ends a trial after an epoch: the time budget is spent, or early stopping says so."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends after this epoch."""
        steering = self._steering
        if steering.out_of_time():
            return True
        with steering.recording():
            return "row" in result and steering.stops(steering.live[trial_id], result["row"])

    def stop_all(self) -> bool:
        """Never: an epoch that was begun is finished."""
        return False
