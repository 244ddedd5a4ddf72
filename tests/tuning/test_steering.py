"""What is started next, what is stopped, and that a new driver decides as the old one would."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from contract.config import Config
from contract.errors import StorageError
from contract.storage import open_storage
from tuning.ledger import Ledger
from tuning.steering import Budget, Draws, Halving, Notes, Steering


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
            "train": {"workers": 1, "epochs": 9, "patience": None, "max_failures": 1},
            "sweep": {
                "trials": 4,
                "grace_epochs": 1,
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
def steering(tmp_path, clock: Clock) -> Steering:
    return Steering(searching(str(tmp_path)), Ledger(open_storage(str(tmp_path)), clock), 2)


def test_no_more_trials_at_once_than_asked_and_no_more_in_all(steering: Steering) -> None:
    draws = Draws(steering)
    orders = [draws.suggest("a"), draws.suggest("b")]
    assert [order["number"] for order in orders] == [1, 2]
    assert draws.suggest("c") is None
    for name in ("a", "b"):
        steering.ended(steering.live.pop(name))
    assert [draws.suggest("c")["number"], draws.suggest("d")["number"]] == [3, 4]
    for name in ("c", "d"):
        steering.ended(steering.live.pop(name))
    assert draws.suggest("e") == Draws.FINISHED


def test_an_interrupted_trial_comes_before_a_new_one(steering: Steering) -> None:
    first = steering.next_trial()
    assert first is not None
    steering.ledger.note(1, row(1, 0.5))
    again = steering.next_trial()
    assert again is not None
    assert (again.number, again.values, len(again.history)) == (1, first.values, 1)


def test_another_driver_draws_what_the_first_would_have(steering: Steering, tmp_path) -> None:
    straight = [
        steering.next_trial() for _ in range(4) if steering.live.update({str(_): _ + 1}) is None
    ]
    values = {trial.number: trial.values for trial in straight if trial}
    other = Ledger(open_storage(str(tmp_path / "other")))
    for number in range(1, 5):
        resumed = Steering(searching(str(tmp_path)), other, 1)
        trial = resumed.next_trial()
        assert trial is not None
        assert trial.values == values[number]
        other.end(number, "finished")


def test_what_cannot_be_built_is_a_failed_trial_with_its_reason(tmp_path) -> None:
    space = {"network.num_layers": {"choice": [2, 3, 7, 8]}}
    ledger = Ledger(open_storage(str(tmp_path)))
    steering = Steering(searching(str(tmp_path), space=space), ledger, 4)
    while (trial := steering.next_trial()) is not None:
        ledger.end(trial.number, "finished")
    failed = {
        t.values["network.num_layers"]: t.reason for t in ledger.trials if t.state == "failed"
    }
    assert set(failed) == {7, 8}
    assert "must be divisible by 64" in str(failed[7])


def test_an_exhausted_space_ends_the_draws(tmp_path) -> None:
    space = {"network.num_layers": {"choice": [2, 3]}}
    ledger = Ledger(open_storage(str(tmp_path)))
    steering = Steering(searching(str(tmp_path), space=space), ledger, 4)
    while (trial := steering.next_trial()) is not None:
        ledger.end(trial.number, "finished")
    assert len(ledger.trials) == 2


def test_a_lost_trial_is_started_again_but_not_for_ever(steering: Steering) -> None:
    steering.next_trial()
    steering.lost(1)
    again = steering.next_trial()
    assert again is not None
    assert again.number == 1
    steering.lost(1)
    assert steering.ledger[1].state == "failed"
    assert "lost more than train.max_failures = 1 times" in str(steering.ledger[1].reason)


def test_no_epoch_begins_after_the_time_budget(tmp_path, clock: Clock) -> None:
    config = searching(str(tmp_path), time_budget_s=60.0)
    steering = Steering(config, Ledger(open_storage(str(tmp_path)), clock), 2)
    budget = Budget(steering)
    steering.next_trial()
    assert not budget("x", {})
    clock.now = 61.0
    assert budget("x", {})
    assert not budget.stop_all()
    assert steering.next_trial() is None
    assert not steering.unfinished()
    assert steering.ledger[1].state == "out of time"


def test_the_end_of_a_trial_is_told_by_how_far_it_came(steering: Steering) -> None:
    for number, epochs in ((1, 9), (2, 3)):
        steering.ledger.begin(number, "s", {})
        for epoch in range(1, epochs + 1):
            steering.ledger.note(number, row(epoch, 0.5))
        steering.ended(number)
    assert [trial.state for trial in steering.ledger.trials] == ["finished", "stopped"]


def tune_trial(number: int, name: str = "", status: str = "RUNNING") -> Any:
    return SimpleNamespace(
        trial_id=name or f"tune-{number}", config={"number": number}, status=status
    )


def told(scheduler: Halving, number: int, epoch: int, score: float, name: str = "") -> str:
    return scheduler.on_trial_result(
        None, tune_trial(number, name), {"epoch": epoch, "score": score}
    )


def test_poor_trials_are_stopped_at_the_rungs_and_good_ones_go_on(tmp_path) -> None:
    scheduler = Halving(searching(str(tmp_path)), [])
    for number in (1, 2, 3, 4):
        scheduler.on_trial_add(None, tune_trial(number))
    assert told(scheduler, 1, 1, 0.5) == TrialScheduler.CONTINUE
    assert told(scheduler, 2, 1, 0.1) == TrialScheduler.STOP
    assert told(scheduler, 3, 1, 0.9) == TrialScheduler.CONTINUE
    assert told(scheduler, 3, 2, 0.0) == TrialScheduler.CONTINUE
    assert told(scheduler, 4, 1, 0.4) == TrialScheduler.STOP
    assert told(scheduler, 3, 9, 0.0) == TrialScheduler.CONTINUE


def test_a_new_driver_stops_what_the_old_one_would_have(tmp_path) -> None:
    config, ledger = searching(str(tmp_path)), Ledger(open_storage(str(tmp_path)))
    scores = {1: [0.5, 0.6, 0.7], 2: [0.1], 3: [0.9, 0.9], 4: [0.4]}
    for number, given in scores.items():
        ledger.begin(number, f"s-{number}", {})
        for epoch, score in enumerate(given, start=1):
            ledger.note(number, row(epoch, score))
    again = Halving(config, ledger.trials)
    # Trial 3 goes on under another name of Tune's; its place in the first rung stays.
    again.on_trial_add(None, tune_trial(3, "renamed"))
    again.on_trial_add(None, tune_trial(5))
    assert told(again, 3, 1, 0.9, "renamed") == TrialScheduler.CONTINUE
    assert told(again, 3, 3, 0.6, "renamed") == TrialScheduler.STOP
    assert told(again, 5, 1, 0.55) == TrialScheduler.CONTINUE
    again.on_trial_complete(None, tune_trial(5), {"epoch": 1, "score": 0.55})
    again.on_trial_remove(None, tune_trial(3, "renamed"))


def test_a_lower_loss_counts_as_better(tmp_path) -> None:
    config = searching(str(tmp_path)).with_values({"train.monitor": "val_loss"})
    scheduler = Halving(config, [])
    for number in (1, 2):
        scheduler.on_trial_add(None, tune_trial(number))
    assert told(scheduler, 1, 1, 0.5) == TrialScheduler.CONTINUE
    assert told(scheduler, 2, 1, 0.6) == TrialScheduler.STOP


def test_a_process_that_tune_gave_up_is_noticed(steering: Steering) -> None:
    Draws(steering).suggest("lost")
    said: list[int] = []
    notes = Notes(steering, lambda: said.append(1))
    notes.on_step_begin(0, [tune_trial(1, "lost", "ERROR")])
    notes.on_step_begin(1, [tune_trial(1, "lost", "ERROR")])
    assert (steering.ledger[1].lost, steering.live, said) == (1, {}, [1])


def test_what_tune_never_told_the_end_of_counts_as_lost(steering: Steering) -> None:
    draws = Draws(steering)
    draws.suggest("a")
    draws.suggest("b")
    steering.left_behind()
    assert steering.live == {}
    assert [trial.lost for trial in steering.ledger.trials] == [1, 1]


def test_a_store_that_fails_is_named_after_tune_has_ended(steering: Steering, tmp_path) -> None:
    Draws(steering).suggest("a")
    records = tmp_path / "trials"
    for record in records.iterdir():
        record.unlink()
    records.rmdir()
    records.write_text("in the way")
    notes = Notes(steering, lambda: None)
    with pytest.raises(StorageError):
        notes.on_trial_result(0, [], tune_trial(1, "a"), {"row": row(1, 0.5)})
    assert isinstance(steering.fault, StorageError)
