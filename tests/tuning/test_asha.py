"""Which of the recorded trials are worth more epochs."""

from contract.config import Config
from tuning import asha
from tuning.trial_store import Trial

CONFIG = Config.model_validate(
    {
        "train": {"epochs": 9, "num_workers": 1},
        "sweep": {"grace_period": 1, "reduction_factor": 3},
    }
)


def trial(number: int, budget_epochs: int, *scores: float, status: str = "paused") -> Trial:
    history = [
        {"epoch": float(epoch), "val_dice_coef": score, "val_loss": score, "time_s": 0.0}
        for epoch, score in enumerate(scores, start=1)
    ]
    return Trial.model_validate(
        {
            "number": number,
            "run": f"s-{number}",
            "values": {},
            "started": 0.0,
            "resumed": 0.0,
            "budget_epochs": budget_epochs,
            "status": status,
            "history": history,
        }
    )


def numbers(trials: list[Trial], config: Config = CONFIG, idle: bool = False) -> list[int]:
    return [
        promoted.number for promoted in asha.promotable(trials, config.sweep, config.train, idle)
    ]


def test_every_trial_is_given_the_first_rung_and_the_next_is_so_many_times_as_high() -> None:
    assert asha.first_rung(CONFIG.sweep, CONFIG.train) == 1
    assert [asha.next_rung(epochs, CONFIG.sweep, CONFIG.train) for epochs in (1, 3, 4)] == [3, 9, 9]
    assert asha.all_rungs(CONFIG.sweep, CONFIG.train) == [1, 3, 9]
    to_the_end = CONFIG.with_values({"sweep.early_stopping": False})
    assert asha.all_rungs(to_the_end.sweep, to_the_end.train) == [9]
    assert numbers([trial(1, 9, 0.5)], to_the_end, idle=True) == []
    long_grace = CONFIG.with_values({"sweep.grace_period": 20})
    assert asha.first_rung(long_grace.sweep, long_grace.train) == 9


def test_the_best_third_continues_once_there_are_three() -> None:
    assert numbers([trial(1, 1, 0.5), trial(2, 1, 0.6)]) == []
    assert numbers([trial(1, 1, 0.5), trial(2, 1, 0.6), trial(3, 1, 0.4)]) == [2]
    six = [trial(number, 1, number / 10) for number in range(1, 7)]
    assert numbers(six) == [6, 5]


def test_that_went_on_counts_at_the_rung_and_is_not_chosen_again() -> None:
    promoted = trial(2, 3, 0.6, status="running")
    assert numbers([trial(1, 1, 0.5), promoted, trial(3, 1, 0.4)]) == []
    better = trial(4, 1, 0.7)
    assert numbers([trial(1, 1, 0.5), promoted, trial(3, 1, 0.4), better]) == [4]


def test_a_trial_that_failed_counts_and_does_not_continue() -> None:
    assert numbers([trial(1, 1, 0.5), trial(2, 1, 0.6, status="failed"), trial(3, 1, 0.4)]) == []


def test_a_trial_under_way_to_its_rung_is_not_there_yet() -> None:
    assert numbers([trial(1, 1, 0.5), trial(2, 1, 0.6), trial(3, 1, status="running")]) == []


def test_where_the_best_have_failed_another_is_trained_to_the_end() -> None:
    trials = [trial(1, 1, 0.5), trial(2, 1, 0.9, status="failed"), trial(3, 1, 0.4)]
    assert numbers([*trials, trial(4, 1, 0.3)], idle=True) == [1]


def test_the_highest_rung_comes_first_and_the_best_until_it_counts() -> None:
    high = [trial(number, 3, 0.1, 0.9 - number / 10, 0.2) for number in (1, 2, 3)]
    low = [trial(number, 1, 0.3 + number / 10) for number in range(4, 13)]
    # Of the twelve at the lowest rung four may continue, and none of the three above is among them.
    assert numbers([*low, *high]) == [1, 12, 11, 10, 9]


def test_a_lower_loss_is_better() -> None:
    by_loss = CONFIG.with_values({"train.monitor": "val_loss"})
    assert numbers([trial(n, 1, n / 10) for n in (1, 2, 3)], by_loss) == [1]


def test_if_there_is_nothing_else_to_do_the_best_continues_and_none_indefinitely() -> None:
    assert numbers([trial(1, 1, 0.5), trial(2, 1, 0.6)], idle=True) == [2]
    assert numbers([trial(1, 1, 0.5), trial(2, 3, 0.6, 0.6, 0.6)], idle=True) == [2]
    done = trial(2, 9, *[0.6] * 9, status="completed")
    assert numbers([trial(1, 1, 0.5), done], idle=True) == []
    # Judged by an epoch before its last, as where a driver was lost just then.
    assert numbers([trial(2, 9, *[0.6] * 9)], idle=True) == []
