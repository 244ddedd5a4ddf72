"""The best of the trials, and its settings."""

import tomllib

import pytest

from contract.config import Config
from contract.errors import TrainingError
from tuning.best_trial import best_trial_toml, select_best_trial
from tuning.trial_store import Trial

CONFIG = Config().with_values({"run.name": "demo", "train.monitor": "val_dice_coef"})


def trial(number: int, *scores: float, error: str | None = None) -> Trial:
    history = tuple(
        {"epoch": float(epoch), "val_dice_coef": score} for epoch, score in enumerate(scores, 1)
    )
    return Trial(
        number=number,
        run=f"demo-{number:04d}",
        values={"train.learning_rate": number / 1000},
        status="failed" if error else "completed",
        budget_epochs=len(scores),
        started=0.0,
        resumed=0.0,
        history=history,
        error=error,
    )


def test_the_best_epoch_of_all_decides() -> None:
    trials = [trial(1, 0.5, 0.6), trial(2, 0.9, 0.1), trial(3, 0.7)]
    assert select_best_trial(trials, CONFIG).number == 2


def test_without_a_score_the_first_error_is_the_reason() -> None:
    with pytest.raises(TrainingError, match=r"no trial of sweep 'demo' .* trial 1: no memory"):
        select_best_trial([trial(1, error="no memory"), trial(2)], CONFIG)
    with pytest.raises(TrainingError, match=r"sweep\.time_budget_s was used up"):
        select_best_trial([], CONFIG)


def test_its_settings_are_a_complete_file_with_its_values() -> None:
    text = best_trial_toml(CONFIG, trial(2, 0.9))
    config = Config.model_validate(tomllib.loads(text))
    assert config.run.name == "demo-best"
    assert config.train.learning_rate == 0.002
