"""The records of a sweep's trials: one JSON file per trial, written after every epoch.

    <storage.root>/sweeps/<run.name>/trials/0003.json

Only the driver writes them. They are the complete state of a sweep, so a new driver can resume it
after a kill: which trials are done, and what each epoch measured and when.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.config import Config, SettingValue, Train
from contract.errors import StorageError
from contract.storage import Storage, open_storage
from trainer.components import lr_schedule
from trainer.training.loggers.history import EpochMetrics

Status = Literal["running", "completed", "paused", "out of time", "failed"]


class Trial(BaseModel):
    """One trial: the values it tries, its status, and the metrics of each epoch.

    All times are seconds on the clock of the sweep, which runs only while the sweep runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int
    """Counts from 1 within the sweep."""
    run: str
    """Name of the run that it trains: <storage.root>/runs/<run>. With sweep.cross_validate, a run
    for each fold: <run>-fold1 and so on."""
    values: dict[str, SettingValue]
    """The searched settings, as {"train.learning_rate": 1e-3}."""
    started: float
    """When it was given to Ray Tune, where it may wait for resources."""
    ended: float | None = None
    """When it ended or was paused."""
    resumed: float
    """When it was last given to Ray Tune: its start, or the last time it continued."""
    training_seconds: float = 0.0
    """Seconds between each time it was given to Ray Tune and the following pause or end."""
    budget_epochs: int
    """Epochs that it may train until its next rung."""
    status: Status = "running"
    """paused: by early stopping, and may continue later. running is also what a killed driver
    leaves behind."""
    error: str | None = None
    """Why it failed."""
    traceback: str | None = None
    """The stack trace of an error that was not a mistake of the user."""
    lost_processes: int = 0
    """How often its process was lost."""
    history: tuple[EpochMetrics, ...] = ()
    """The metrics of each epoch, and "time_s": when it ended."""

    def scores(self, monitor: str) -> tuple[float, ...]:
        """The monitored metric of every epoch."""
        return tuple(metrics[monitor] for metrics in self.history)

    def best_epoch(self, monitor: str) -> EpochMetrics | None:
        """The metrics of the best epoch, the earliest of equals; None before the first."""
        if not self.history:
            return None
        return self.history[lr_schedule.best_epoch(self.scores(monitor), monitor)]


def with_epoch(trial: Trial, metrics: EpochMetrics, time_s: float) -> Trial:
    """The trial after an epoch.

    An epoch that is reported twice changes nothing. One that was trained again, from an older
    checkpoint, replaces the epochs after that checkpoint.
    """
    epoch = metrics["epoch"]
    known = next((earlier for earlier in trial.history if earlier["epoch"] == epoch), None)
    if known is not None and {**known, "time_s": 0.0} == {**metrics, "time_s": 0.0}:
        return trial
    before = tuple(earlier for earlier in trial.history if earlier["epoch"] < epoch)
    return trial.model_copy(update={"history": (*before, {**metrics, "time_s": time_s})})


def training_seconds(trial: Trial) -> float:
    """Seconds that a trial has trained, until its end or its last reported epoch."""
    if trial.ended is not None:
        return trial.training_seconds
    times = [metrics["time_s"] - trial.resumed for metrics in trial.history]
    return trial.training_seconds + max([0.0, *times])


def is_trained(trial: Trial, train: Train) -> bool:
    """Whether no epoch is left to train: the last one is done, or train.patience is exceeded."""
    return lr_schedule.is_finished(trial.scores(train.monitor), train)


def rank_trials(trials: Sequence[Trial], monitor: str) -> list[Trial]:
    """The trials from best to worst, those without a score last; the earlier of equals first."""

    def rank(trial: Trial) -> tuple[bool, float, int]:
        best = trial.best_epoch(monitor)
        score = lr_schedule.score_sign(monitor) * best[monitor] if best else 0.0
        return best is None, -score, trial.number

    return sorted(trials, key=rank)


def sweep_storage(config: Config) -> Storage:
    """Where the sweep of these settings is stored."""
    return open_storage(config.storage.root).child(f"sweeps/{config.run.name}")


class TrialStore:
    """All trials of a sweep, in memory and in storage."""

    def __init__(self, sweep: Storage, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the trials that are recorded in the storage of a sweep."""
        self._storage = sweep.child("trials")
        self._clock = clock
        self._trials = {trial.number: trial for trial in read_trials(sweep)}
        # The time between a kill and its resumption does not count.
        self._start = clock() - max(map(_last_event_time, self._trials.values()), default=0.0)

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def now(self) -> float:
        """Seconds that the sweep has run."""
        return self._clock() - self._start

    def create(
        self, number: int, run: str, values: Mapping[str, SettingValue], budget_epochs: int
    ) -> Trial:
        """Record a new trial."""
        now = self.now()
        return self._save(
            Trial(
                number=number,
                run=run,
                values=dict(values),
                started=now,
                resumed=now,
                budget_epochs=budget_epochs,
            )
        )

    def extend_budget(self, number: int, budget_epochs: int) -> Trial:
        """Record that a trial may train this many epochs in total; a paused one continues."""
        trial = self[number]
        resumed = trial.resumed if trial.ended is None else self.now()
        return self._update(
            number, budget_epochs=budget_epochs, status="running", ended=None, resumed=resumed
        )

    def log_epoch(self, number: int, metrics: EpochMetrics) -> Trial:
        """Record an epoch of a trial."""
        return self._save(with_epoch(self[number], metrics, self.now()))

    def finish(self, number: int, status: Status) -> Trial:
        """Record that a trial has ended or was paused."""
        return self._close(number, status=status)

    def fail(self, number: int, error: str, traceback: str | None = None) -> Trial:
        """Record that a trial failed, and why."""
        return self._close(number, status="failed", error=error, traceback=traceback)

    def record_loss(self, number: int) -> Trial:
        """Record that the process of a trial was lost."""
        return self._update(number, lost_processes=self[number].lost_processes + 1)

    def _close(self, number: int, **changes: object) -> Trial:
        trial, now = self[number], self.now()
        seconds = trial.training_seconds + now - trial.resumed
        return self._update(number, ended=now, training_seconds=seconds, **changes)

    def _update(self, number: int, **changes: object) -> Trial:
        return self._save(self[number].model_copy(update=changes))

    def _save(self, trial: Trial) -> Trial:
        if self._trials.get(trial.number) != trial:
            self._trials[trial.number] = trial
            key = f"{trial.number:04d}.json"
            self._storage.write(key, trial.model_dump_json(indent=2).encode())
        return trial


def read_trials(sweep: Storage) -> list[Trial]:
    """The recorded trials of a sweep; StorageError if a record is damaged."""
    trials = sweep.child("trials")
    keys = [info.key for info in trials.list_objects() if info.key.endswith(".json")]
    return [_read_trial(trials, key) for key in keys]


def _read_trial(trials: Storage, key: str) -> Trial:
    try:
        return Trial.model_validate_json(trials.read(key))
    except ValidationError as error:
        raise StorageError(
            f"the trial record {trials.url}/{key} is damaged: delete it to train this trial again."
        ) from error


def _last_event_time(trial: Trial) -> float:
    times = [metrics["time_s"] for metrics in trial.history]
    return max([trial.resumed, trial.ended or 0.0, *times])
