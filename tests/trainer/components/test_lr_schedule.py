"""The decisions over time, on plain numbers."""

import pytest

from contract.config import Train
from trainer.components import lr_schedule


def test_the_best_epoch_is_the_highest_score_or_the_lowest_loss() -> None:
    assert lr_schedule.best_epoch([0.1, 0.5, 0.5, 0.4], "val_dice_coef") == 1
    assert lr_schedule.best_epoch([0.9, 0.2, 0.3], "val_loss") == 1


@pytest.mark.parametrize(
    ("scores", "stop"), [([], False), ([0.5, 0.4], False), ([0.5, 0.4, 0.3], True)]
)
def test_training_stops_after_patience_epochs_without_a_better_score(
    scores: list[float], stop: bool
) -> None:
    assert lr_schedule.should_stop(scores, Train(patience=2)) is stop


def test_without_patience_training_never_stops_early() -> None:
    assert not lr_schedule.should_stop([0.5] + [0.1] * 50, Train(patience=None))


def test_plateau_cuts_after_each_patience_and_starts_to_wait_again() -> None:
    train = Train(lr_schedule="plateau", plateau_patience=2, plateau_factor=0.5, learning_rate=1.0)
    rates = [lr_schedule.learning_rate(0.0, scores, train) for scores in _growing([0.5] * 6)]
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_the_plateau_does_not_cut_below_the_minimum() -> None:
    train = Train(
        lr_schedule="plateau",
        plateau_patience=1,
        plateau_factor=0.1,
        learning_rate=1.0,
        plateau_min_lr=0.05,
    )
    rates = [lr_schedule.learning_rate(float(n), [0.5] * n, train) for n in range(4)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.05])


def test_a_better_score_keeps_the_plateau_from_cutting() -> None:
    train = Train(lr_schedule="plateau", plateau_patience=2)
    assert lr_schedule.count_reductions([0.1, 0.1, 0.2, 0.2, 0.3], train) == 0


@pytest.mark.parametrize("name", ["polynomial", "cosine"])
def test_decay_falls_from_the_learning_rate_to_nothing(name: str) -> None:
    train = Train.model_validate({"lr_schedule": name, "epochs": 10, "learning_rate": 0.1})
    rates = [lr_schedule.learning_rate(epoch, [], train) for epoch in range(11)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.0)
    assert rates == sorted(rates, reverse=True)


def test_warm_up_rises_linearly_and_hands_over_at_the_top() -> None:
    train = Train(warmup_epochs=2, epochs=10, learning_rate=0.1, lr_schedule="cosine")
    assert lr_schedule.learning_rate(1.0, [], train) == pytest.approx(0.05)
    assert lr_schedule.learning_rate(2.0, [], train) == pytest.approx(0.1)


def test_one_cycle_rises_for_30_percent_and_falls_to_nearly_nothing() -> None:
    train = Train(epochs=10, learning_rate=0.1, lr_schedule="one_cycle")
    rates = [lr_schedule.learning_rate(epoch, [], train) for epoch in range(11)]
    assert [rates[0], rates[3], rates[10]] == pytest.approx([0.004, 0.1, 1e-5])
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == sorted(rates[3:], reverse=True)


def _growing(scores: list[float]) -> list[list[float]]:
    return [scores[:count] for count in range(len(scores) + 1)]
