"""The record of trials survives its driver, and keeps time only while one is at work."""

import pytest

from contract.config import Train
from contract.errors import StorageError
from contract.storage import open_storage
from tuning.trial_store import (
    Trial,
    TrialStore,
    is_trained,
    rank_trials,
    read_trials,
    training_seconds,
    with_epoch,
)


class FakeClock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def epoch_metrics(epoch: int, score: float = 0.5) -> dict[str, float]:
    return {"epoch": float(epoch), "val_dice_coef": score, "val_loss": 1 - score}


def trial(number: int, *scores: float) -> Trial:
    history = tuple(
        {**epoch_metrics(epoch, s), "time_s": epoch} for epoch, s in enumerate(scores, start=1)
    )
    return Trial(
        number=number,
        run=f"s-{number:04d}",
        values={},
        started=0,
        resumed=0,
        budget_epochs=2,
        history=history,
    )


def test_all_that_is_noted_is_there_for_the_next_driver(tmp_path) -> None:
    clock = FakeClock()
    trial_store = TrialStore(open_storage(str(tmp_path)), clock)
    values = {"a.rate": 1e-3, "a.kernel": 3, "a.flag": True, "a.word": "x", "a.pair": (96, 160)}
    trial_store.create(1, "s-0001", values, 2)
    clock.now += 10
    trial_store.log_epoch(1, epoch_metrics(1))
    trial_store.create(2, "s-0002", {"a.rate": 2e-3}, 2)
    trial_store.fail(2, "a sentence", "a stack")
    clock.now += 5
    trial_store.finish(1, "completed")
    again = TrialStore(open_storage(str(tmp_path)), clock)
    assert again.trials == trial_store.trials
    assert again[1].values == values
    assert [type(value) for value in again[1].values.values()] == [
        float,
        int,
        bool,
        str,
        tuple,
    ]
    assert again[1].history == ({**epoch_metrics(1), "time_s": 10.0},)
    assert (again[1].status, again[1].ended) == ("completed", 15.0)
    assert (again[2].status, again[2].error, again[2].traceback) == (
        "failed",
        "a sentence",
        "a stack",
    )


def test_the_time_between_two_drivers_does_not_count(tmp_path) -> None:
    clock = FakeClock()
    trial_store = TrialStore(open_storage(str(tmp_path)), clock)
    trial_store.create(1, "s-0001", {}, 2)
    clock.now += 30
    trial_store.log_epoch(1, epoch_metrics(1))
    clock.now += 5000
    again = TrialStore(open_storage(str(tmp_path)), clock)
    assert again.now() == 30
    clock.now += 7
    assert again.now() == 37


def test_the_time_between_a_stop_and_going_on_is_not_spent(tmp_path) -> None:
    clock = FakeClock()
    trial_store = TrialStore(open_storage(str(tmp_path)), clock)
    trial_store.create(1, "s-0001", {}, 2)
    clock.now += 10
    assert training_seconds(trial_store.finish(1, "paused")) == 10
    clock.now += 100
    assert training_seconds(trial_store.extend_budget(1, 6)) == 10
    clock.now += 5
    assert training_seconds(trial_store.log_epoch(1, epoch_metrics(1))) == 15
    # Among the best at the next rung: it continues without a stop.
    trial_store.extend_budget(1, 18)
    clock.now += 7
    assert training_seconds(trial_store.finish(1, "completed")) == 22


def test_an_epoch_reported_twice_is_kept_once_with_its_first_time() -> None:
    noted = with_epoch(with_epoch(trial(1), epoch_metrics(1), 5.0), epoch_metrics(2), 6.0)
    assert with_epoch(noted, epoch_metrics(1), 9.0) == noted


def test_an_epoch_trained_again_replaces_what_followed() -> None:
    before = trial(1, 0.1, 0.2, 0.3)
    after = with_epoch(before, epoch_metrics(2, 0.4), 9.0)
    assert after.scores("val_dice_coef") == (0.1, 0.4)


def test_the_best_score_comes_first_and_those_without_one_last() -> None:
    trials = [trial(1, 0.2, 0.1), trial(2), trial(3, 0.3), trial(4, 0.2)]
    assert [one.number for one in rank_trials(trials, "val_dice_coef")] == [3, 1, 4, 2]
    assert [one.number for one in rank_trials(trials, "val_loss")] == [3, 1, 4, 2]


def test_a_trial_is_trained_when_its_epochs_or_its_patience_are_over() -> None:
    train = Train(epochs=4, patience=2, num_workers=1)
    assert not is_trained(trial(1, 0.1, 0.2, 0.3), train)
    assert is_trained(trial(1, 0.1, 0.2, 0.3, 0.4), train)
    assert is_trained(trial(1, 0.3, 0.2, 0.1), train)


def test_a_damaged_record_is_named(tmp_path) -> None:
    store = open_storage(str(tmp_path))
    store.write("trials/0002.json", b"{")
    with pytest.raises(StorageError, match=r"0002\.json is damaged"):
        read_trials(store)
