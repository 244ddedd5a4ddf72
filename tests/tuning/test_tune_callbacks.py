"""What Ray Tune asks and reports becomes decisions and records of the sweep."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract.errors import StorageError
from tests.sweeps import FakeClock, epoch_metrics
from tuning.scheduler import SweepScheduler
from tuning.tune_callbacks import SweepSearcher, TrialRecorder, TrialStopper


def tune_trial(number: int, name: str = "", status: str = "RUNNING") -> Any:
    return SimpleNamespace(
        trial_id=name or f"tune-{number}", config={"number": number}, status=status
    )


def test_no_more_trials_at_once_than_asked_and_no_more_in_all(scheduler: SweepScheduler) -> None:
    searcher = SweepSearcher(scheduler)
    specs = [searcher.suggest("a"), searcher.suggest("b")]
    assert [spec["number"] for spec in specs] == [1, 2]
    assert searcher.suggest("c") is None
    for name in ("a", "b"):
        scheduler.finish_trial(scheduler.live.pop(name))
    assert [searcher.suggest("c")["number"], searcher.suggest("d")["number"]] == [3, 4]
    for name in ("c", "d"):
        scheduler.finish_trial(scheduler.live.pop(name))
    assert searcher.suggest("e") == SweepSearcher.FINISHED


def test_a_process_that_tune_gave_up_is_noticed(scheduler: SweepScheduler) -> None:
    SweepSearcher(scheduler).suggest("lost")
    records: list[int] = []
    recorder = TrialRecorder(scheduler, lambda: records.append(1))
    recorder.on_step_begin(0, [tune_trial(1, "lost", "ERROR")])
    recorder.on_step_begin(1, [tune_trial(1, "lost", "ERROR")])
    assert (scheduler.store[1].lost_processes, scheduler.live, records) == (1, {}, [1])


def test_a_store_that_fails_is_named_after_tune_has_ended(
    scheduler: SweepScheduler, tmp_path: Path
) -> None:
    SweepSearcher(scheduler).suggest("a")
    records = tmp_path / "trials"
    for record in records.iterdir():
        record.unlink()
    records.rmdir()
    records.write_text("in the way")
    recorder = TrialRecorder(scheduler, lambda: None)
    for record in (
        lambda: recorder.on_trial_result(
            0, [], tune_trial(1, "a"), {"history": [epoch_metrics(1, 0.5)]}
        ),
        lambda: SweepSearcher(scheduler).suggest("b"),
    ):
        scheduler.error = None
        with pytest.raises(StorageError):
            record()
        assert isinstance(scheduler.error, StorageError)


def test_an_epoch_is_recorded_and_the_start_of_a_trial_is_not(scheduler: SweepScheduler) -> None:
    SweepSearcher(scheduler).suggest("a")
    records: list[int] = []
    recorder = TrialRecorder(scheduler, lambda: records.append(len(scheduler.store[1].history)))
    recorder.on_trial_result(0, [], tune_trial(1, "a"), {"epoch": 0, "score": 0.0})
    recorder.on_trial_result(0, [], tune_trial(1, "a"), {"history": [epoch_metrics(1, 0.5)]})
    assert scheduler.store[1].history == ({**epoch_metrics(1, 0.5), "time_s": 0.0},)
    assert records == [0, 1]


def test_the_reason_of_a_failure_is_recorded(scheduler: SweepScheduler) -> None:
    SweepSearcher(scheduler).suggest("a")
    recorder = TrialRecorder(scheduler, lambda: None)
    failure = {"epoch": 0, "error": "ValueError: no memory", "traceback": "Traceback …"}
    recorder.on_trial_result(0, [], tune_trial(1, "a"), failure)
    recorder.on_trial_complete(0, [], tune_trial(1, "a"))
    trial = scheduler.store[1]
    assert (trial.status, trial.error, trial.traceback) == (
        "failed",
        "ValueError: no memory",
        "Traceback …",
    )
    assert scheduler.live == {}


def test_the_end_of_a_trial_is_recorded(scheduler: SweepScheduler, clock: FakeClock) -> None:
    SweepSearcher(scheduler).suggest("a")
    recorder = TrialRecorder(scheduler, lambda: None)
    recorder.on_trial_result(0, [], tune_trial(1, "a"), {"history": [epoch_metrics(1, 0.5)]})
    clock.now = 7.0
    recorder.on_trial_complete(0, [], tune_trial(1, "a"))
    assert (scheduler.store[1].status, scheduler.store[1].ended) == ("paused", 7.0)
    assert scheduler.live == {}


def test_early_stopping_ends_a_trial_at_its_rung_only(scheduler: SweepScheduler) -> None:
    searcher, stopper = SweepSearcher(scheduler), TrialStopper(scheduler)
    searcher.suggest("a")
    # What a trial reports when it starts is not an epoch.
    assert not stopper("a", {"epoch": 0, "score": 0.0})
    assert stopper("a", {"epoch": 1, "history": [epoch_metrics(1, 0.5)]})
