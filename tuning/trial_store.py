"""The record of a sweep's trials: one JSON file each, written after every epoch.

    <storage.root>/sweeps/<run.name>/trials/0003.json

The driver alone writes them. They are all that a sweep needs to go on after a kill: which trials
are done, what each epoch measured and when.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.config import Scalar, Train
from contract.errors import StorageError
from contract.storage import Storage
from trainer.components import lr_schedule

EpochMetrics = dict[str, float]
State = Literal["running", "finished", "stopped", "out of time", "failed"]


class Trial(BaseModel):
    """One trial: what it tries, how it ended and what each epoch measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int
    """Counts from 1 within the sweep."""
    run: str
    """Name of the run it trains: <storage.root>/runs/<run>."""
    values: dict[str, Scalar]
    """The searched settings, as {"train.learning_rate": 1e-3}."""
    started: float
    """When it was given to Ray Tune, where it may wait for room, in seconds of the sweep."""
    ended: float | None = None
    """When it ended, or was stopped."""
    resumed: float
    """When it was last given to Ray Tune: when it began, or went on."""
    training_seconds: float = 0.0
    """Seconds from each time it was given to Ray Tune to the stop that followed."""
    budget_epochs: int
    """Epochs it may train before it is judged by early stopping."""
    state: State = "running"
    """stopped: by early stopping, perhaps to go on later; running: also what a killed driver leaves
    behind."""
    error: str | None = None
    """Why it failed."""
    traceback: str | None = None
    """The stack of an error that was no user's mistake."""
    losses: int = 0
    """How often its process was lost."""
    history: tuple[EpochMetrics, ...] = ()
    """A row an epoch, as the trainer measured it, and "at": when, in seconds of the sweep."""

    def scores(self, monitor: str) -> tuple[float, ...]:
        """The monitored score of every epoch."""
        return tuple(row[monitor] for row in self.history)

    def best(self, monitor: str) -> EpochMetrics | None:
        """The row of the best epoch, the earlier of equals; None before the first."""
        if not self.history:
            return None
        return self.history[lr_schedule.best_epoch(self.scores(monitor), monitor)]


def with_epoch(trial: Trial, row: EpochMetrics, at: float) -> Trial:
    """The trial after an epoch.

    An epoch that is told again changes nothing; one that was trained again, from an older
    checkpoint, replaces what followed.
    """
    epoch = row["epoch"]
    known = next((old for old in trial.history if old["epoch"] == epoch), None)
    if known is not None and {**known, "at": 0.0} == {**row, "at": 0.0}:
        return trial
    before = tuple(old for old in trial.history if old["epoch"] < epoch)
    return trial.model_copy(update={"history": (*before, {**row, "at": at})})


def training_seconds(trial: Trial) -> float:
    """Seconds that a trial was at work, until its end or the last that was heard of it."""
    if trial.ended is not None:
        return trial.training_seconds
    return trial.training_seconds + max(
        [0.0, *(row["at"] - trial.resumed for row in trial.history)]
    )


def is_trained(trial: Trial, train: Train) -> bool:
    """Whether a trial has nothing left to train: its last epoch is done, or its patience over."""
    scores = trial.scores(train.monitor)
    return len(scores) >= train.epochs or lr_schedule.should_stop(scores, train)


def rank_trials(trials: Sequence[Trial], monitor: str) -> list[Trial]:
    """The trials, the best score first, those without a score last; of equals the earlier one."""

    def rank(trial: Trial) -> tuple[bool, float, int]:
        best = trial.best(monitor)
        score = lr_schedule.score_sign(monitor) * best[monitor] if best else 0.0
        return best is None, -score, trial.number

    return sorted(trials, key=rank)


class TrialStore:
    """All trials of a sweep, in memory and in the store."""

    def __init__(self, store: Storage, clock: Callable[[], float] = time.monotonic) -> None:
        """store: the sweep's own place; what is recorded there is read."""
        self._store = store.child("trials")
        self._clock = clock
        self._trials = {trial.number: trial for trial in read_trials(store)}
        # The time between a kill and its resumption does not count.
        self._start = clock() - max(map(_last_sign, self._trials.values()), default=0.0)

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def now(self) -> float:
        """Seconds that the sweep has been at work."""
        return self._clock() - self._start

    def create(self, number: int, run: str, values: Mapping[str, Scalar], granted: int) -> Trial:
        """Record a new trial."""
        return self._keep(
            Trial(
                number=number,
                run=run,
                values=dict(values),
                started=(now := self.now()),
                resumed=now,
                budget_epochs=granted,
            )
        )

    def extend_budget(self, number: int, granted: int) -> Trial:
        """Record that a trial may train so many epochs in all; a stopped one goes on."""
        trial = self[number]
        since = trial.resumed if trial.ended is None else self.now()
        return self._change(number, granted=granted, state="running", ended=None, since=since)

    def log_epoch(self, number: int, row: EpochMetrics) -> Trial:
        """Record an epoch of a trial."""
        return self._keep(with_epoch(self[number], row, self.now()))

    def finish(self, number: int, state: State) -> Trial:
        """Record that a trial is over."""
        return self._close(number, state=state)

    def fail(self, number: int, reason: str, trace: str | None = None) -> Trial:
        """Record that a trial failed and why."""
        return self._close(number, state="failed", reason=reason, trace=trace)

    def record_loss(self, number: int) -> Trial:
        """Record that the process of a trial was lost."""
        return self._change(number, lost=self[number].losses + 1)

    def _close(self, number: int, **changes: object) -> Trial:
        trial, now = self[number], self.now()
        spent = trial.training_seconds + now - trial.resumed
        return self._change(number, ended=now, spent=spent, **changes)

    def _change(self, number: int, **changes: object) -> Trial:
        return self._keep(self[number].model_copy(update=changes))

    def _keep(self, trial: Trial) -> Trial:
        if self._trials.get(trial.number) != trial:
            self._trials[trial.number] = trial
            key = f"{trial.number:04d}.json"
            self._store.write(key, trial.model_dump_json(indent=2).encode())
        return trial


def read_trials(store: Storage) -> list[Trial]:
    """The recorded trials of a sweep; StorageError where a record is damaged."""
    trials = store.child("trials")
    return [
        _read(trials, entry.key) for entry in trials.list_objects() if entry.key.endswith(".json")
    ]


def _read(store: Storage, key: str) -> Trial:
    try:
        return Trial.model_validate_json(store.read(key))
    except ValidationError as error:
        raise StorageError(
            f"the record {store.url}/{key} is damaged: delete it to have the trial done again."
        ) from error


def _last_sign(trial: Trial) -> float:
    return max([trial.resumed, trial.ended or 0.0, *(row["at"] for row in trial.history)])
