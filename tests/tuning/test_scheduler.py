"""Which trial runs next, which pauses, and that a new driver decides as the old one would."""

from contract.storage import open_storage
from tests.sweeps import FakeClock, epoch_metrics, sweep_config
from tuning.scheduler import SweepScheduler
from tuning.trial_store import TrialStore
from tuning.tune_callbacks import SweepSearcher, TrialStopper


def test_an_interrupted_trial_comes_before_a_new_one(scheduler: SweepScheduler) -> None:
    first = scheduler.next_trial()
    assert first is not None
    scheduler.store.log_epoch(1, epoch_metrics(1, 0.5))
    again = scheduler.next_trial()
    assert again is not None
    assert (again.number, again.values, len(again.history)) == (1, first.values, 1)


def test_another_driver_draws_what_the_first_would_have(
    scheduler: SweepScheduler, tmp_path
) -> None:
    straight = [
        scheduler.next_trial() for _ in range(4) if scheduler.live.update({str(_): _ + 1}) is None
    ]
    values = {trial.number: trial.values for trial in straight if trial}
    other = TrialStore(open_storage(str(tmp_path / "other")))
    for number in range(1, 5):
        resumed = SweepScheduler(sweep_config(str(tmp_path)), other, 1)
        trial = resumed.next_trial()
        assert trial is not None
        assert trial.values == values[number]
        other.finish(number, "completed")


def test_what_cannot_be_built_is_a_failed_trial_with_its_reason(tmp_path) -> None:
    space = {"network.num_layers": {"choice": [2, 3, 7, 8]}}
    trial_store = TrialStore(open_storage(str(tmp_path)))
    scheduler = SweepScheduler(sweep_config(str(tmp_path), space=space), trial_store, 4)
    while (trial := scheduler.next_trial()) is not None:
        trial_store.finish(trial.number, "completed")
    failed = {
        t.values["network.num_layers"]: t.error for t in trial_store.trials if t.status == "failed"
    }
    assert set(failed) == {7, 8}
    assert "must be at least 64 pixels" in str(failed[7])


def test_an_exhausted_space_ends_the_draws(tmp_path) -> None:
    space = {"network.num_layers": {"choice": [2, 3]}}
    trial_store = TrialStore(open_storage(str(tmp_path)))
    scheduler = SweepScheduler(sweep_config(str(tmp_path), space=space), trial_store, 4)
    while (trial := scheduler.next_trial()) is not None:
        trial_store.finish(trial.number, "completed")
    assert len(trial_store.trials) == 2


def test_a_lost_trial_is_started_again_but_not_indefinitely(scheduler: SweepScheduler) -> None:
    scheduler.next_trial()
    scheduler.record_loss(1)
    again = scheduler.next_trial()
    assert again is not None
    assert again.number == 1
    scheduler.record_loss(1)
    assert scheduler.store[1].status == "failed"
    assert "lost more than train.max_failures = 1 times" in str(scheduler.store[1].error)


def test_no_epoch_starts_after_the_time_budget(tmp_path, clock: FakeClock) -> None:
    config = sweep_config(str(tmp_path), time_budget_s=60.0)
    scheduler = SweepScheduler(config, TrialStore(open_storage(str(tmp_path)), clock), 2)
    stopper = TrialStopper(scheduler)
    scheduler.next_trial()
    assert not stopper("x", {})
    clock.now = 61.0
    assert stopper("x", {})
    assert not stopper.stop_all()
    assert scheduler.next_trial() is None
    assert not scheduler.has_interrupted()
    assert scheduler.store[1].status == "out of time"
    larger = config.with_values({"sweep.time_budget_s": 90.0})
    again = SweepScheduler(larger, TrialStore(open_storage(str(tmp_path)), clock), 2)
    trial = again.next_trial()
    assert trial is not None
    assert (trial.number, trial.status) == (1, "running")


def test_the_end_of_a_trial_is_reported_by_how_far_it_came(scheduler: SweepScheduler) -> None:
    for number, epochs in ((1, 9), (2, 3)):
        scheduler.store.create(number, "s", {}, 9)
        for epoch in range(1, epochs + 1):
            scheduler.store.log_epoch(number, epoch_metrics(epoch, 0.5))
        scheduler.finish_trial(number)
    assert [trial.status for trial in scheduler.store.trials] == ["completed", "paused"]


def report_epoch(scheduler: SweepScheduler, number: int, epoch: int, score: float) -> bool:
    """Whether a trial ends after an epoch; does what Ray Tune does then."""
    ends = TrialStopper(scheduler)(
        f"tune-{number}", {"epoch": epoch, "history": [epoch_metrics(epoch, score)]}
    )
    scheduler.store.log_epoch(number, epoch_metrics(epoch, score))
    if ends:
        scheduler.finish_trial(scheduler.live.pop(f"tune-{number}"))
    return ends


def start_next(scheduler: SweepScheduler) -> int:
    spec = SweepSearcher(scheduler).suggest("new")
    scheduler.live[f"tune-{spec['number']}"] = scheduler.live.pop("new")
    return spec["number"]


def test_trials_wait_at_the_rungs_and_continue_when_they_are_among_the_best(
    scheduler: SweepScheduler,
) -> None:
    assert [start_next(scheduler), start_next(scheduler)] == [1, 2]
    assert report_epoch(scheduler, 1, 1, 0.5)
    assert start_next(scheduler) == 3
    assert report_epoch(scheduler, 2, 1, 0.4)
    # The best of three continues without a stop; 1 had been better, until 3 came.
    assert not report_epoch(scheduler, 3, 1, 0.6)
    assert not report_epoch(scheduler, 3, 2, 0.1)
    assert start_next(scheduler) == 4
    # All are drawn, and 3 continues already.
    assert report_epoch(scheduler, 4, 1, 0.45)
    assert SweepSearcher(scheduler).suggest("idle") is None
    # Alone at the second rung, with nothing else to do.
    assert not report_epoch(scheduler, 3, 3, 0.1)
    assert not report_epoch(scheduler, 3, 9, 0.2)
    scheduler.store.log_epoch(3, epoch_metrics(9, 0.2))
    assert [trial.budget_epochs for trial in scheduler.store.trials] == [1, 1, 9, 1]


def test_none_continues_for_want_of_rivals_while_there_is_something_else_to_do(tmp_path) -> None:
    scheduler = SweepScheduler(
        sweep_config(str(tmp_path), num_samples=7), TrialStore(open_storage(str(tmp_path))), 6
    )
    for _ in range(6):
        start_next(scheduler)
    for number, score in ((1, 0.6), (2, 0.5)):
        assert report_epoch(scheduler, number, 1, score)
    assert not report_epoch(scheduler, 3, 1, 0.7)
    for number, score in ((4, 0.1), (5, 0.2), (6, 0.3)):
        assert report_epoch(scheduler, number, 1, score)
    # 1 is among the best third of six and waits, so 3 does not take the next rung for want of
    # rivals there.
    assert not report_epoch(scheduler, 3, 2, 0.1)
    assert report_epoch(scheduler, 3, 3, 0.1)
    assert [start_next(scheduler) for _ in range(3)] == [1, 7, 3]


def test_a_stopped_trial_continues_later_before_a_new_one_is_sampled(
    scheduler: SweepScheduler,
) -> None:
    for number, score in ((1, 0.6), (2, 0.5), (3, 0.4)):
        assert start_next(scheduler) == number
        assert report_epoch(scheduler, number, 1, score)
    assert scheduler.store[1].status == "paused"
    assert start_next(scheduler) == 1
    assert (scheduler.store[1].status, scheduler.store[1].budget_epochs) == ("running", 3)
    # It tells again of what it did before, and is not judged by that again.
    assert not report_epoch(scheduler, 1, 1, 0.6)
    assert start_next(scheduler) == 4


def test_a_new_driver_continues_as_the_old_one_would_have(
    scheduler: SweepScheduler, tmp_path
) -> None:
    for number, score in ((1, 0.6), (2, 0.5), (3, 0.4)):
        start_next(scheduler)
        report_epoch(scheduler, number, 1, score)
    again = SweepScheduler(scheduler.config, TrialStore(open_storage(str(tmp_path))), 2)
    assert start_next(again) == 1
    # Killed before it ended, it comes first and keeps what it was budget_epochs.
    third = SweepScheduler(scheduler.config, TrialStore(open_storage(str(tmp_path))), 2)
    assert start_next(third) == 1
    assert third.store[1].budget_epochs == 3


def test_without_early_stopping_none_is_stopped(tmp_path) -> None:
    config = sweep_config(str(tmp_path), early_stopping=False)
    scheduler = SweepScheduler(config, TrialStore(open_storage(str(tmp_path))), 2)
    for number in (1, 2):
        start_next(scheduler)
        assert not report_epoch(scheduler, number, 1, 0.1)
    assert not scheduler.has_more_trials()


def test_what_tune_never_reported_the_end_of_counts_as_lost(scheduler: SweepScheduler) -> None:
    searcher = SweepSearcher(scheduler)
    searcher.suggest("a")
    searcher.suggest("b")
    scheduler.mark_orphaned()
    assert scheduler.live == {}
    assert [trial.lost_processes for trial in scheduler.store.trials] == [1, 1]
