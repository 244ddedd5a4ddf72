"""What is started next, what is stopped, and that a new driver decides as the old one would."""

from types import SimpleNamespace
from typing import Any

import pytest

from contract.config import Config
from contract.errors import StorageError
from contract.storage import open_storage
from tuning.scheduler import SweepSearcher, TrialRecorder, TrialScheduler, TrialStopper
from tuning.trial_store import TrialStore


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def searching(root: str, **sweep) -> Config:
    return Config.model_validate(
        {
            "run": {"name": "s", "seed": 5},
            "storage": {"root": root},
            "network": {"image_size": 32, "num_layers": 3},
            "train": {"num_workers": 1, "epochs": 9, "patience": None, "max_failures": 1},
            "sweep": {
                "num_samples": 4,
                "grace_period": 1,
                "space": {"train.learning_rate": {"loguniform": [1e-4, 1e-1]}},
                **sweep,
            },
        }
    )


def row(epoch: int, score: float) -> dict[str, float]:
    return {"epoch": float(epoch), "val_dice_coef": score}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def steering(tmp_path, clock: Clock) -> TrialScheduler:
    return TrialScheduler(
        searching(str(tmp_path)), TrialStore(open_storage(str(tmp_path)), clock), 2
    )


def test_no_more_trials_at_once_than_asked_and_no_more_in_all(steering: TrialScheduler) -> None:
    draws = SweepSearcher(steering)
    orders = [draws.suggest("a"), draws.suggest("b")]
    assert [order["number"] for order in orders] == [1, 2]
    assert draws.suggest("c") is None
    for name in ("a", "b"):
        steering.finish_trial(steering.live.pop(name))
    assert [draws.suggest("c")["number"], draws.suggest("d")["number"]] == [3, 4]
    for name in ("c", "d"):
        steering.finish_trial(steering.live.pop(name))
    assert draws.suggest("e") == SweepSearcher.FINISHED


def test_an_interrupted_trial_comes_before_a_new_one(steering: TrialScheduler) -> None:
    first = steering.next_trial()
    assert first is not None
    steering.store.log_epoch(1, row(1, 0.5))
    again = steering.next_trial()
    assert again is not None
    assert (again.number, again.values, len(again.history)) == (1, first.values, 1)


def test_another_driver_draws_what_the_first_would_have(steering: TrialScheduler, tmp_path) -> None:
    straight = [
        steering.next_trial() for _ in range(4) if steering.live.update({str(_): _ + 1}) is None
    ]
    values = {trial.number: trial.values for trial in straight if trial}
    other = TrialStore(open_storage(str(tmp_path / "other")))
    for number in range(1, 5):
        resumed = TrialScheduler(searching(str(tmp_path)), other, 1)
        trial = resumed.next_trial()
        assert trial is not None
        assert trial.values == values[number]
        other.finish(number, "finished")


def test_what_cannot_be_built_is_a_failed_trial_with_its_reason(tmp_path) -> None:
    space = {"network.num_layers": {"choice": [2, 3, 7, 8]}}
    ledger = TrialStore(open_storage(str(tmp_path)))
    steering = TrialScheduler(searching(str(tmp_path), space=space), ledger, 4)
    while (trial := steering.next_trial()) is not None:
        ledger.finish(trial.number, "finished")
    failed = {t.values["network.num_layers"]: t.error for t in ledger.trials if t.state == "failed"}
    assert set(failed) == {7, 8}
    assert "must be divisible by 64" in str(failed[7])


def test_an_exhausted_space_ends_the_draws(tmp_path) -> None:
    space = {"network.num_layers": {"choice": [2, 3]}}
    ledger = TrialStore(open_storage(str(tmp_path)))
    steering = TrialScheduler(searching(str(tmp_path), space=space), ledger, 4)
    while (trial := steering.next_trial()) is not None:
        ledger.finish(trial.number, "finished")
    assert len(ledger.trials) == 2


def test_a_lost_trial_is_started_again_but_not_for_ever(steering: TrialScheduler) -> None:
    steering.next_trial()
    steering.record_loss(1)
    again = steering.next_trial()
    assert again is not None
    assert again.number == 1
    steering.record_loss(1)
    assert steering.store[1].state == "failed"
    assert "lost more than train.max_failures = 1 times" in str(steering.store[1].error)


def test_no_epoch_begins_after_the_time_budget(tmp_path, clock: Clock) -> None:
    config = searching(str(tmp_path), time_budget_s=60.0)
    steering = TrialScheduler(config, TrialStore(open_storage(str(tmp_path)), clock), 2)
    ends = TrialStopper(steering)
    steering.next_trial()
    assert not ends("x", {})
    clock.now = 61.0
    assert ends("x", {})
    assert not ends.stop_all()
    assert steering.next_trial() is None
    assert not steering.has_interrupted()
    assert steering.store[1].state == "out of time"
    larger = config.with_values({"sweep.time_budget_s": 90.0})
    again = TrialScheduler(larger, TrialStore(open_storage(str(tmp_path)), clock), 2)
    trial = again.next_trial()
    assert trial is not None
    assert (trial.number, trial.state) == (1, "running")


def test_the_end_of_a_trial_is_told_by_how_far_it_came(steering: TrialScheduler) -> None:
    for number, epochs in ((1, 9), (2, 3)):
        steering.store.create(number, "s", {}, 9)
        for epoch in range(1, epochs + 1):
            steering.store.log_epoch(number, row(epoch, 0.5))
        steering.finish_trial(number)
    assert [trial.state for trial in steering.store.trials] == ["finished", "stopped"]


def tune_trial(number: int, name: str = "", status: str = "RUNNING") -> Any:
    return SimpleNamespace(
        trial_id=name or f"tune-{number}", config={"number": number}, status=status
    )


def told(steering: TrialScheduler, number: int, epoch: int, score: float) -> bool:
    """Whether a trial ends when it tells of an epoch; what Tune then does is done here too."""
    ends = TrialStopper(steering)(f"tune-{number}", {"epoch": epoch, "row": row(epoch, score)})
    steering.store.log_epoch(number, row(epoch, score))
    if ends:
        steering.finish_trial(steering.live.pop(f"tune-{number}"))
    return ends


def started(steering: TrialScheduler) -> int:
    order = SweepSearcher(steering).suggest("new")
    steering.live[f"tune-{order['number']}"] = steering.live.pop("new")
    return order["number"]


def test_trials_wait_at_the_rungs_and_go_on_when_they_are_among_the_best(
    steering: TrialScheduler,
) -> None:
    assert [started(steering), started(steering)] == [1, 2]
    assert told(steering, 1, 1, 0.5)
    assert started(steering) == 3
    assert told(steering, 2, 1, 0.4)
    # The best of three continues without a stop; 1 had been better, until 3 came.
    assert not told(steering, 3, 1, 0.6)
    assert not told(steering, 3, 2, 0.1)
    assert started(steering) == 4
    # All are drawn, and 3 continues already.
    assert told(steering, 4, 1, 0.45)
    assert SweepSearcher(steering).suggest("idle") is None
    # Alone at the second rung, with nothing else to do.
    assert not told(steering, 3, 3, 0.1)
    assert not told(steering, 3, 9, 0.2)
    steering.store.log_epoch(3, row(9, 0.2))
    assert [trial.budget_epochs for trial in steering.store.trials] == [1, 1, 9, 1]


def test_no one_goes_on_for_want_of_rivals_while_there_is_something_else_to_do(tmp_path) -> None:
    steering = TrialScheduler(
        searching(str(tmp_path), trials=7), TrialStore(open_storage(str(tmp_path))), 6
    )
    for _ in range(6):
        started(steering)
    for number, score in ((1, 0.6), (2, 0.5)):
        assert told(steering, number, 1, score)
    assert not told(steering, 3, 1, 0.7)
    for number, score in ((4, 0.1), (5, 0.2), (6, 0.3)):
        assert told(steering, number, 1, score)
    # 1 is among the best third of six and waits, so 3 does not take the next rung for want of
    # rivals there.
    assert not told(steering, 3, 2, 0.1)
    assert told(steering, 3, 3, 0.1)
    assert [started(steering) for _ in range(3)] == [1, 7, 3]


def test_a_stopped_trial_goes_on_later_before_a_new_one_is_drawn(steering: TrialScheduler) -> None:
    for number, score in ((1, 0.6), (2, 0.5), (3, 0.4)):
        assert started(steering) == number
        assert told(steering, number, 1, score)
    assert steering.store[1].state == "stopped"
    assert started(steering) == 1
    assert (steering.store[1].state, steering.store[1].budget_epochs) == ("running", 3)
    # It tells again of what it did before, and is not judged by that again.
    assert not told(steering, 1, 1, 0.6)
    assert started(steering) == 4


def test_a_new_driver_goes_on_as_the_old_one_would_have(steering: TrialScheduler, tmp_path) -> None:
    for number, score in ((1, 0.6), (2, 0.5), (3, 0.4)):
        started(steering)
        told(steering, number, 1, score)
    again = TrialScheduler(steering.config, TrialStore(open_storage(str(tmp_path))), 2)
    assert started(again) == 1
    # Killed before it ended, it comes first and keeps what it was granted.
    third = TrialScheduler(steering.config, TrialStore(open_storage(str(tmp_path))), 2)
    assert started(third) == 1
    assert third.store[1].budget_epochs == 3


def test_without_early_stopping_no one_is_stopped(tmp_path) -> None:
    config = searching(str(tmp_path), early_stopping=False)
    steering = TrialScheduler(config, TrialStore(open_storage(str(tmp_path))), 2)
    for number in (1, 2):
        started(steering)
        assert not told(steering, number, 1, 0.1)
    assert not steering.has_more_trials()


def test_a_process_that_tune_gave_up_is_noticed(steering: TrialScheduler) -> None:
    SweepSearcher(steering).suggest("lost")
    said: list[int] = []
    notes = TrialRecorder(steering, lambda: said.append(1))
    notes.on_step_begin(0, [tune_trial(1, "lost", "ERROR")])
    notes.on_step_begin(1, [tune_trial(1, "lost", "ERROR")])
    assert (steering.store[1].losses, steering.live, said) == (1, {}, [1])


def test_what_tune_never_told_the_end_of_counts_as_lost(steering: TrialScheduler) -> None:
    draws = SweepSearcher(steering)
    draws.suggest("a")
    draws.suggest("b")
    steering.mark_orphaned()
    assert steering.live == {}
    assert [trial.losses for trial in steering.store.trials] == [1, 1]


def test_a_store_that_fails_is_named_after_tune_has_ended(
    steering: TrialScheduler, tmp_path
) -> None:
    SweepSearcher(steering).suggest("a")
    records = tmp_path / "trials"
    for record in records.iterdir():
        record.unlink()
    records.rmdir()
    records.write_text("in the way")
    notes = TrialRecorder(steering, lambda: None)
    for record in (
        lambda: notes.on_trial_result(0, [], tune_trial(1, "a"), {"row": row(1, 0.5)}),
        lambda: SweepSearcher(steering).suggest("b"),
    ):
        steering.error = None
        with pytest.raises(StorageError):
            record()
        assert isinstance(steering.error, StorageError)
