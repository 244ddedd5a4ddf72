"""The commands of sweeps read the records of the trials."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import tuning
from contract.config import Config
from contract.config.loader import to_toml
from contract.errors import TrainingError
from tests.sweeps import epoch_metrics, sweep_config
from tuning.__main__ import app
from tuning.trial_store import TrialStore, sweep_storage


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """The file of the settings of a sweep that was not started."""
    path = tmp_path / "sweep.toml"
    path.write_text(to_toml(sweep_config(str(tmp_path / "storage"))))
    return path


@pytest.fixture
def started(settings: Path, tmp_path: Path) -> Path:
    """The settings of a sweep with a completed, a failed and a running trial."""
    storage = sweep_storage(sweep_config(str(tmp_path / "storage")))
    storage.write("config.toml", settings.read_bytes())
    store = TrialStore(storage)
    for number, score in ((1, 0.5), (2, 0.75)):
        store.create(number, f"s-{number:04d}", {"train.learning_rate": number / 1000}, 9)
        store.log_epoch(number, epoch_metrics(1, score))
    store.finish(1, "completed")
    store.create(3, "s-0003", {"train.learning_rate": 0.1}, 9)
    store.fail(3, "loss is NaN after epoch 1.")
    return settings


def test_the_leaderboard_has_the_best_trial_first(started: Path) -> None:
    result = CliRunner().invoke(app, ["leaderboard", str(started)])
    assert result.exit_code == 0, result.output
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert header[:4] == ["rank", "trial", "val_dice_coef", "epoch"]
    assert [row[:4] for row in rows[:3]] == [
        ["1", "2", "0.7500", "1"],
        ["2", "1", "0.5000", "1"],
        ["3", "3", "-", "-"],
    ]
    assert [row[-2:] for row in rows[:3]] == [
        ["running", "0.002"],
        ["completed", "0.001"],
        ["failed", "0.1"],
    ]
    assert result.stdout.endswith("trial 3 failed: loss is NaN after epoch 1.\n")


def test_a_sweep_that_was_not_started_has_no_leaderboard(settings: Path) -> None:
    result = CliRunner().invoke(app, ["leaderboard", str(settings)])
    assert isinstance(result.exception, TrainingError)
    assert "there is no sweep 's'" in str(result.exception)


@pytest.mark.parametrize("command", ["sweep", "leaderboard"])
def test_settings_are_shown_and_nothing_is_done(command: str, settings: Path) -> None:
    result = CliRunner().invoke(app, [command, str(settings), "--show-config"])
    assert (result.exit_code, result.stdout) == (0, settings.read_text())


def test_an_interrupted_sweep_says_what_it_has_kept(
    started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config: Config) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "run_sweep", interrupt)
    result = CliRunner().invoke(app, ["sweep", str(started)])
    assert result.exit_code == 130
    assert result.stderr == (
        "interrupted: 1 completed trials and every finished epoch are kept in "
        f"{tmp_path}/storage/sweeps/s; the same command resumes the sweep.\n"
    )
