"""Leaderboard and plots of a small sweep written down by hand."""

import csv
import io

import cv2
import numpy as np
import pytest

from contract.config import Config
from contract.storage import open_storage
from tuning import report
from tuning.best_trial import best_trial_toml
from tuning.trainable import trial_config
from tuning.trial_store import Trial, rank_trials

MONITOR = "val_dice_coef"
CONFIG = Config.model_validate(
    {
        "run": {"name": "s"},
        "sweep": {
            "space": {
                "train.learning_rate": {"loguniform": [1e-4, 1e-1]},
                "network.base_filters": {"int": [4, 8]},
                "network.dropout_rate": {"uniform": [0, 0.5]},
                "network.activation": {"choice": ["relu", "mish"]},
            }
        },
    }
)


def trial(number: int, scores: list[float], status: str, started: float = 0.0) -> Trial:
    return Trial.model_validate(
        {
            "number": number,
            "run": f"s-{number:04d}",
            "values": {
                "train.learning_rate": 0.001 * number,
                "network.base_filters": 3 + number,
                "network.dropout_rate": 0.1 * number,
                "network.activation": "relu" if number % 2 else "mish",
            },
            "started": started,
            "budget_epochs": 4,
            "resumed": started,
            "training_seconds": 10.0 * len(scores) + 2,
            "ended": None if status == "running" else started + 10 * len(scores) + 2,
            "status": status,
            "error": "kernels too large." if status == "failed" else None,
            "history": [
                {
                    "epoch": epoch,
                    MONITOR: score,
                    "val_loss": 1 - score,
                    "time_s": started + 10 * epoch,
                }
                for epoch, score in enumerate(scores, start=1)
            ],
        }
    )


@pytest.fixture
def trials() -> list[Trial]:
    return rank_trials(
        [
            trial(1, [0.2, 0.4, 0.6], "completed"),
            trial(2, [0.1], "paused", 5.0),
            trial(3, [0.3, 0.7, 0.65], "completed", 20.0),
            trial(4, [], "failed", 40.0),
            trial(5, [0.25, 0.3], "out of time", 45.0),
            trial(6, [0.2], "running", 50.0),
        ],
        MONITOR,
    )


def test_the_csv_has_a_row_for_every_trial_best_first(trials: list[Trial]) -> None:
    rows = list(csv.DictReader(io.StringIO(report.leaderboard_csv(trials, MONITOR).decode())))
    assert [row["trial"] for row in rows] == ["3", "1", "5", "6", "2", "4"]
    best = rows[0]
    assert (best["rank"], best[MONITOR], best["best_epoch"], best["epochs"]) == (
        "1",
        "0.7",
        "2",
        "3",
    )
    assert (best["seconds"], best["status"], best["run"]) == ("32.0", "completed", "s-0003")
    assert (best["network.activation"], best["network.base_filters"]) == ("relu", "6")
    assert (rows[-1][MONITOR], rows[-1]["error"]) == ("", "kernels too large.")


def test_the_table_gives_failures_in_words(trials: list[Trial]) -> None:
    lines = report.leaderboard_text(trials, MONITOR).splitlines()
    assert lines[0].split()[:3] == ["rank", "trial", MONITOR]
    assert lines[1].split()[:4] == ["1", "3", "0.7000", "2"]
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[7] == "trial 4 failed: kernels too large."


def test_the_standing_names_the_best_so_far(trials: list[Trial]) -> None:
    assert report.format_sweep_status(trials, MONITOR) == (
        f"1 running, 10 epochs, best {MONITOR} 0.7000 (trial 3)"
    )
    assert report.format_sweep_status([], MONITOR) == "0 running, 0 epochs"


def test_the_plots_are_sampled_also_if_there_is_little_to_draw(
    tmp_path, trials: list[Trial]
) -> None:
    store = open_storage(str(tmp_path))
    report.write_report(store, CONFIG, trials)
    for name in (report.SCORES, report.SETTINGS):
        image = cv2.imdecode(np.frombuffer(store.read(name), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.std() > 5
    report.write_report(store.child("failed"), CONFIG, [trial(4, [], "failed")])
    report.write_report(store.child("one"), CONFIG, [trial(1, [0.5], "completed")])


def test_a_shown_result_names_its_making(trials: list[Trial]) -> None:
    head = best_trial_toml(CONFIG, trials[0]).split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines() if line)
    assert "trial 3, val_dice_coef 0.7000 at epoch 2" in head
    settings = trial_config(CONFIG, trials[0].number, trials[0].values)
    assert f"Fingerprint {settings.fingerprint()}" in head
    assert CONFIG.fingerprint() in report.describe_source(CONFIG)
