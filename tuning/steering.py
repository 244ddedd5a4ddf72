"""Our side of Ray Tune: which trial comes next, when one is stopped, what is recorded.

Ray Tune starts the processes, passes their results on and ends them. What is known of the trials
is in the ledger; Tune's own record of a sweep is not used.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from contract.config import Config
from contract.errors import ConfigError, UserError
from trainer import schedule
from tuning import space
from tuning.ledger import Ledger, Trial, all_trained
from tuning.trainable import run_name, trial_config

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

    def next_trial(self) -> Trial | None:
        """An interrupted trial or a new one; None where no more is to be started now."""
        if self.out_of_time():
            return None
        return self._interrupted() or (None if self.exhausted else self._drawn())

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
        live = set(self.live.values())
        waiting = (t for t in self.ledger.trials if t.state == "running" and t.number not in live)
        return next(waiting, None)

    def _drawn(self) -> Trial | None:
        """A new trial; one whose settings do not go together is recorded and passed over."""
        taken = {trial.number for trial in self.ledger.trials}
        for number in range(1, self.config.sweep.trials + 1):
            if number in taken:
                continue
            values = self._draw(number)
            if values is None:
                self.exhausted = True
                log.info("every combination of sweep.space has been tried")
                return None
            trial = self.ledger.begin(number, run_name(self.config, number), values)
            try:
                self._config_of(trial)
            except ConfigError as error:
                self.ledger.fail(number, str(error))
                continue
            return trial
        return None

    def _draw(self, number: int) -> dict[str, Any] | None:
        sweep, monitor = self.config.sweep, self.config.train.monitor
        higher = schedule.direction(monitor) > 0
        past = [
            space.Past(
                trial.values,
                trial.state,
                trial.scores(monitor),
                best[monitor] if (best := trial.best(monitor)) else None,
            )
            for trial in self.ledger.trials
        ]
        direction = "maximize" if higher else "minimize"
        return space.draw(sweep.space, sweep.search, direction, self.config.run.seed, number, past)

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
        trial = steering.next_trial()
        if trial is None:
            return Searcher.FINISHED
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
        """Keep an error, as Tune passes on its text alone; then tell of what was recorded."""
        try:
            yield
        except UserError as error:
            self._steering.fault = error
            raise
        self._tell()


class Budget(Stopper):
    """Starts no epoch once the time budget is spent."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends after this epoch."""
        return self._steering.out_of_time()

    def stop_all(self) -> bool:
        """Never: an epoch that was begun is finished."""
        return False


class Halving(ASHAScheduler):
    """Asynchronous successive halving (ASHA, Li 2020) that outlives the driver.

    A trial keeps its place in the rungs when its process or the driver is lost: it goes by its
    number, which stays, where Tune gives it a new name.
    """

    def __init__(self, config: Config, trials: Sequence[Trial]) -> None:
        """trials: what is recorded of earlier trials; their epochs are judged in order of time."""
        monitor = config.train.monitor
        super().__init__(
            time_attr="epoch",
            metric="score",
            mode="max" if schedule.direction(monitor) > 0 else "min",
            max_t=config.train.epochs,
            grace_period=min(config.sweep.grace_epochs, config.train.epochs),
            reduction_factor=config.sweep.reduction_factor,
            # Whoever has reached the last rung trains to the end.
            stop_last_trials=False,
        )
        nobody: Any = None  # ASHA does not look at Tune's controller
        for trial in trials:
            super().on_trial_add(nobody, _named(trial.number))
        rows = [(row["at"], trial.number, row) for trial in trials for row in trial.history]
        for _, number, row in sorted(rows, key=lambda told: told[:2]):
            result = {"epoch": row["epoch"], "score": row[monitor]}
            super().on_trial_result(nobody, _named(number), result)

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Take in a trial."""
        super().on_trial_add(tune_controller, _named(trial.config["number"]))

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Whether a trial goes on."""
        return super().on_trial_result(tune_controller, _named(trial.config["number"]), result)

    def on_trial_complete(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """Keep its last score."""
        super().on_trial_complete(tune_controller, _named(trial.config["number"]), result)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Forget a trial that never started."""
        super().on_trial_remove(tune_controller, _named(trial.config["number"]))


def _named(number: int) -> Any:
    """What ASHA looks at of a trial."""
    return SimpleNamespace(trial_id=str(number))
