"""Ray Tune's Searcher, Callback and Stopper, which connect it to the trial scheduler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from tuning.scheduler import SweepScheduler


class SweepSearcher(Searcher):
    """Tells Ray Tune which trial to start next."""

    def __init__(self, scheduler: SweepScheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Declare that the limit is applied here; Ray Tune's own miscounts lost trials."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The specification of a trial, None for later, FINISHED if none is left to start.

        After FINISHED, Ray Tune ends the processes that are idle.
        """
        scheduler = self._scheduler
        if len(scheduler.live) >= scheduler.max_concurrent:
            return None
        with scheduler.capture_errors():
            trial = scheduler.next_trial()
        if trial is None:
            return None if scheduler.has_more_trials() else Searcher.FINISHED
        scheduler.live[trial_id] = trial.number
        return {"number": trial.number, "values": trial.values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: TrialRecorder records the end of a trial."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the trial store is the complete state."""


class TrialRecorder(Callback):
    """Records in the trial store what Ray Tune reports of the trials."""

    def __init__(self, scheduler: SweepScheduler, on_record: Callable[[], None]) -> None:
        """on_record is called after each record."""
        self._scheduler, self._on_record = scheduler, on_record

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Detect trials whose process was lost; Ray Tune does not report every loss by a call."""
        for trial in trials:
            if trial.status == TuneTrial.ERROR and trial.trial_id in self._scheduler.live:
                with self._recording():
                    self._scheduler.record_loss(self._scheduler.live.pop(trial.trial_id))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Record epochs or a failure."""
        number = self._scheduler.live[trial.trial_id]
        with self._recording():
            if "error" in result:
                self._scheduler.store.fail(number, result["error"], result["traceback"])
            for metrics in result.get("history", ()):
                self._scheduler.store.log_epoch(number, metrics)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Record the end of a trial."""
        with self._recording():
            self._scheduler.finish_trial(self._scheduler.live.pop(trial.trial_id))

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record in the block, then call on_record."""
        with self._scheduler.capture_errors():
            yield
        self._on_record()


class TrialStopper(Stopper):
    """Ends a trial after a report if the time budget is used up or early stopping pauses it."""

    def __init__(self, scheduler: SweepScheduler) -> None:
        self._scheduler = scheduler

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends after this report."""
        scheduler = self._scheduler
        if scheduler.is_out_of_time():
            return True
        history = result.get("history", ())
        with scheduler.capture_errors():
            return bool(history) and scheduler.should_stop(scheduler.live[trial_id], history)

    def stop_all(self) -> bool:
        """Always False: an epoch that has started is finished."""
        return False
