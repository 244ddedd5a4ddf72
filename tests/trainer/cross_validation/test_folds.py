"""A cross-validation as a user runs it, on a real cluster: two folds, one report, one bundle."""

import csv
import io
import json
import shutil
import threading
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

import trainer
from cluster.connection import Connection
from contract import bundle
from contract.config import Config
from contract.config.loader import load_config, to_toml
from contract.errors import BundleError, ConfigError, TrainingError
from contract.storage import LocalStorage, open_storage
from tests.small import FEW_SLICES, NETWORK
from tests.waiting import HANG_TIMEOUT_S
from trainer.__main__ import app
from trainer.cross_validation import folds
from trainer.cross_validation.fold_settings import fold_configs
from trainer.cross_validation.folds import (
    cross_validate,
    prepare_folds,
    prepare_trained_folds,
)
from trainer.cross_validation.results import CrossValidation
from trainer.evaluation.prediction_tuning import replace_predict
from trainer.export.prediction_settings import export_with_settings
from trainer.training import fit_thread, run_store


def tiny(root: str) -> Config:
    return Config.model_validate(
        {
            "run": {"name": "tiny"},
            "storage": {"root": root},
            "data": {"phantom": FEW_SLICES, "folds": 2},
            "network": NETWORK,
            "train": {
                "num_workers": 1,
                "epochs": 1,
                "batch_size": 4,
                "steps_per_epoch": 16,
                "learning_rate": 0.02,
                "preview_images": 0,
            },
        }
    )


def test_every_patient_is_evaluated_once_by_a_network_that_has_not_seen_it(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    config = tiny(str(tmp_path))
    progress: list[tuple[int, int | None, str]] = []
    result = cross_validate(config, prepare_folds(config), lambda *each: progress.append(each))
    assert progress[-1] == (32, 32, "2 of 2 folds are trained")
    root = open_storage(f"{tmp_path}/cross_validations/tiny")
    rows = list(csv.DictReader(io.StringIO(root.read("patients.csv").decode())))
    patients = [row["patient"] for row in rows]
    assert patients == ["PHANTOM_0001", "PHANTOM_0002", "PHANTOM_1001"]
    assert sorted({row["fold"] for row in rows}) == ["1", "2"]
    for fold in result.folds:
        trained = bundle.verify(Path(fold.bundle)).patients
        valid_patients = {row["patient"] for row in rows if row["fold"] == str(fold.number)}
        assert set(trained["valid"]) == valid_patients
        assert not valid_patients & set(trained["train"])
        assert (Path(fold.evaluation) / "report.html").exists()
    record = json.loads(root.read("cross_validation.json"))
    mean = sum(float(row["dice"]) for row in rows) / 3
    assert record["dice"]["summary"]["mean"] == pytest.approx(mean, abs=1e-5)
    page = root.read("report.html").decode()
    assert all(patient in page for patient in patients)
    assert root.read("patients.png").startswith(b"\x89PNG")
    ensemble = bundle.verify(tmp_path / "cross_validations/tiny/bundle")
    assert len(ensemble.members) == 2
    # It knows all patients that it has seen, so the test split alone is left.
    assert ensemble.patients == {"train": tuple(patients), "valid": ()}
    evaluation = trainer.evaluate(str(tmp_path / "cross_validations/tiny/bundle"))
    assert [patient.patient for patient in evaluation.patients] == ["PHANTOM_2001"]

    check_tuning(config, result, tmp_path)

    # A finished fold is not trained again, one that was deleted is, and the ensemble has it.
    runs = [run_store.run_storage(each) for each in fold_configs(config)]
    before = [run.read("run.json") for run in runs]
    for changed in ({"train.epochs": 2}, {"data.folds": 3}):
        with pytest.raises(ConfigError, match=r"was trained with other settings .*: restore those"):
            prepare_trained_folds(config.with_values(changed))
    shutil.rmtree(tmp_path / "runs/tiny-fold2")
    with pytest.raises(BundleError, match=r"is not finished: fold 2 of 2 has no bundle in .*fold2"):
        prepare_trained_folds(config)
    words = ["cross-validate", str(tmp_path / "tiny.toml")]
    (tmp_path / "tiny.toml").write_text(to_toml(config))
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["fold", "1", str(len(result.folds[0].patients))],
        ["fold", "2", str(len(result.folds[1].patients))],
        ["mean", "3", f"{record['dice']['summary']['mean']:.3f}"],
    ]
    assert lines[-1] == f"bundle: {tmp_path}/cross_validations/tiny/bundle"
    assert runs[0].read("run.json") == before[0]
    assert runs[1].read("run.json") != before[1]
    rebuilt = bundle.verify(tmp_path / "cross_validations/tiny/bundle")
    assert [a == b for a, b in zip(rebuilt.members, ensemble.members, strict=True)] == [True, False]
    with pytest.raises(
        TrainingError, match=r"^fold 1 of 2: run .* was started with other settings"
    ):
        prepare_folds(config.with_values({"train.batch_size": 2}))


def check_tuning(config: Config, result: CrossValidation, folder: Path) -> None:
    """The settings of a tuned ensemble are chosen over the patients of all folds."""
    (folder / "tune.toml").write_text(to_toml(config))
    words = ["tune-folds", str(folder / "tune.toml"), str(folder / "tuned")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    tuned = bundle.verify(folder / "tuned")
    tried = tuned.tried_settings
    # The settings to start from have the Dice of the report.
    mean = result.estimate_of("dice").summary.mean
    assert mean is not None
    assert tried[0].dice == pytest.approx(mean, abs=1e-6)
    chosen = [each for each in tried if each.chosen]
    assert tried[0].dice > 0.1, "nothing is tested if no patient has a pixel of foreground"
    assert len(chosen) > 1, "nothing is tested if the first settings are the best"
    # Every fold with these settings has the Dice that was measured.
    predict = load_config(folder / "tuned/config.toml").predict
    dice: list[float] = []
    for fold in result.folds:
        own = load_config(Path(fold.bundle) / "config.toml")
        output = LocalStorage(folder / f"tuned-fold{fold.number}")
        export_with_settings(LocalStorage(Path(fold.bundle)), replace_predict(own, predict), output)
        evaluation = trainer.evaluate(output.url, split="valid", output=str(folder / "evaluation"))
        dice += [each for row in evaluation.table() if (each := row["dice"]) is not None]
    assert chosen[-1].dice == pytest.approx(fmean(dice), abs=1e-6)
    lines = done.stdout.splitlines()
    assert f"Dice of the patients of all folds: {fmean(dice):.4f}, before {mean:.4f}" in lines
    line = next(each for each in lines if each.startswith("nested cross-validation: "))
    # Few patients: what is chosen on one fold may be worse for the other one, but not much.
    assert abs(float(line.split()[-1]) - mean) < 0.1
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, BundleError)
    assert "has a bundle already" in str(again.exception)


def test_folds_are_tuned_after_their_training(tmp_path: Path) -> None:
    (tmp_path / "tune.toml").write_text(to_toml(tiny(str(tmp_path))))
    words = ["tune-folds", str(tmp_path / "tune.toml"), str(tmp_path / "tuned")]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, BundleError)
    assert str(done.exception) == (
        f"there is no cross-validation 'tiny' in {tmp_path}/cross_validations/tiny: run `segfleet "
        "cross-validate` with these settings first, or set run.name to that of a finished one."
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "tune.toml"], "no slice was prepared"


def test_an_error_names_the_fold(ray_cluster: Connection, tmp_path: Path) -> None:
    too_large = {"train.cpus_per_worker": 64, "cluster.start_timeout_s": 1}
    config = tiny(str(tmp_path)).with_values(too_large)
    with pytest.raises(TrainingError) as error:
        cross_validate(config, prepare_folds(config), ensemble=False)
    message = str(error.value)
    assert "fold 1 of 2: the 1 training worker (64 CPUs" in message
    assert "fold 2 of 2: the 1 training worker (64 CPUs" in message
    assert message.endswith("Finished epochs are kept; the same command continues with them.")
    assert not (tmp_path / "cross_validations/tiny/cross_validation.json").exists()


def test_without_folds_the_error_says_what_to_set(tmp_path: Path) -> None:
    config = tiny(str(tmp_path)).with_values({"data.folds": 0})
    with pytest.raises(ConfigError, match=r"data\.folds is 0: .* data\.folds=4"):
        prepare_folds(config)
    selected = tiny(str(tmp_path)).with_values({"data.fold": 2})
    with pytest.raises(ConfigError, match=r"data\.fold = 2 selects one fold"):
        prepare_folds(selected)


def test_settings_are_not_chosen_on_the_patients_of_a_fold(tmp_path: Path) -> None:
    values = {"data.folds": 2, "predict.tune_on_validation": True, "storage.root": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"tune_on_validation = true .* set it to false"):
        prepare_folds(Config().with_values(values))


def test_an_interruption_ends_the_threads_of_all_folds(
    ray_cluster: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A controller may take long to start on a busy machine.
    for module in (fit_thread, folds):
        monkeypatch.setattr(module, "STOP_TIMEOUT_S", HANG_TIMEOUT_S)

    def interrupt(done: int, total: int | None, note: str) -> None:
        raise KeyboardInterrupt

    config = tiny(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        cross_validate(config, prepare_folds(config), interrupt)
    names = {thread.name for thread in threading.enumerate()}
    assert names.isdisjoint({"fold 1", "fold 2", "ray-train"})
    # Their leases are released: the same command continues at once.
    assert open_storage(str(tmp_path)).list_objects("leases") == []
