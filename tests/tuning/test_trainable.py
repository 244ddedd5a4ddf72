"""The settings of a trial, its folds, and the reason why it failed."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from contract.bundle import read_manifest
from contract.config import Config, SettingValue
from contract.errors import ConfigError, DataError
from contract.storage import open_storage
from tests.small import FEW_SLICES, NETWORK
from trainer.cross_validation.fold_settings import fold_configs
from trainer.data.dataset_index import prepare_dataset
from trainer.training import run_store, train_loop
from tuning import best_trial
from tuning.trainable import (
    failure_message,
    failure_traceback,
    run_name,
    train_folds,
    trial_config,
)
from tuning.trial_store import Trial

CONFIG = Config().with_values({"run.name": "demo", "train.num_workers": 2})


def test_a_trial_is_a_run_of_its_own_with_its_values() -> None:
    config = trial_config(CONFIG, 3, {"train.learning_rate": 0.01})
    assert config.run.name == run_name(CONFIG, 3) == "demo-0003"
    assert (config.train.learning_rate, config.train.num_workers) == (0.01, 2)


def test_a_trial_may_have_fewer_workers_than_a_training() -> None:
    config = CONFIG.with_values({"sweep.num_workers": 1})
    assert trial_config(config, 1, {}).train.num_workers == 1


def test_values_that_do_not_fit_each_other_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"image_size must be at least 256 pixels"):
        trial_config(CONFIG, 1, {"network.num_layers": 9})


def raise_in_function() -> None:
    raise ValueError("out of memory\nallocator details.")


def test_an_error_of_segfleet_has_its_type_and_stack_trace() -> None:
    with pytest.raises(ValueError, match="out of memory") as caught:
        raise_in_function()
    assert failure_message(caught.value) == "ValueError: out of memory"
    assert "in raise_in_function" in str(failure_traceback(caught.value))


def test_an_error_of_the_user_is_a_sentence_without_stack_trace() -> None:
    error = DataError("a.png is damaged: replace it.")
    assert failure_message(error) == "a.png is damaged: replace it."
    assert failure_traceback(error) is None


class PausedError(Exception):
    """Raised in a report, as Ray Tune ends the process of a paused trial."""


def test_a_trial_by_folds_is_scored_by_their_mean_and_exports_their_ensemble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TensorFlow is initialized already, after which its threads cannot be configured.
    monkeypatch.setattr(train_loop, "configure_process", lambda train: None)
    values: dict[str, SettingValue] = {"train.learning_rate": 0.01}
    sweep = Config.model_validate(
        {
            "run": {"name": "s"},
            "storage": {"root": str(tmp_path)},
            "data": {"phantom": FEW_SLICES, "folds": 2},
            "network": NETWORK,
            "train": {"num_workers": 1, "epochs": 2, "batch_size": 4, "preview_images": 0},
            "sweep": {
                "cross_validate": True,
                "grace_period": 1,
                "space": {"train.learning_rate": {"choice": [0.01]}},
            },
        }
    )
    trial = trial_config(sweep, 1, values)
    runs = fold_configs(trial)
    datasets = [prepare_dataset(each.data, 0, open_storage(str(tmp_path))) for each in runs]
    reported: list[dict[str, float]] = []
    offers: list[int] = []

    def pause_at_the_first_rung(epochs: Sequence[dict[str, float]]) -> None:
        reported.extend(epochs)
        raise PausedError

    def offer_stop() -> None:
        offers.append(len(reported))

    with pytest.raises(PausedError):
        train_folds(trial, datasets, pause_at_the_first_rung, offer_stop)
    assert offers == [0, 0]
    histories = [run_store.read_history(run_store.run_storage(each)) for each in runs]
    assert [len(history) for history in histories] == [1, 1]
    # The sweep ended there, and this was its best trial.
    best_trial.export_trial(trial.model_dump(mode="json"), f"{tmp_path}/sweeps/s/bundle", None)
    train_folds(trial, datasets, reported.extend, offer_stop)
    # The epoch that was reported before is reported again, as by any trial that continues.
    assert [each["epoch"] for each in reported] == [1.0, 1.0, 2.0]
    histories = [run_store.read_history(run_store.run_storage(each)) for each in runs]
    scores = [history[-1]["val_dice_coef"] for history in histories]
    assert reported[-1]["val_dice_coef"] == pytest.approx(sum(scores) / 2)

    record = Trial(
        number=1,
        run=trial.run.name,
        values=values,
        started=0.0,
        resumed=0.0,
        budget_epochs=2,
        history=({**reported[-1], "time_s": 1.0},),
    )
    assert best_trial.find_bundle([record], sweep) is None
    destination = f"{tmp_path}/sweeps/s/bundle"
    exported = best_trial.export_trial(trial.model_dump(mode="json"), destination, None)
    assert exported == best_trial.find_bundle([record], sweep) == destination
    manifest = read_manifest(open_storage(exported))
    assert [name.split()[0] for name in manifest.members] == ["s-0001-fold1", "s-0001-fold2"]
    assert len(manifest.patients["train"]) == 3
    assert "segfleet cross-validate" in best_trial.best_trial_toml(sweep, record)
