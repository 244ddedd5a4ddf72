"""What is chosen on the validation patients, and that evaluate finds the same Dice."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from typer.testing import CliRunner

from contract import bundle
from contract.config import Augment, Config, Predict
from contract.config.loader import load_config
from contract.errors import BundleError, DataError
from contract.storage import LocalStorage, Storage, open_storage
from tests.small import FEW_SLICES, NETWORK
from trainer.__main__ import app
from trainer.data.dataset_index import prepare_dataset
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.predicted_volumes import PredictedVolume
from trainer.evaluation.prediction_tuning import (
    MIN_GAIN,
    Step,
    choose_settings,
    compute_patient_dice,
    mask_steps,
    tune_bundle,
    view_steps,
)
from trainer.export.ensemble import export_ensemble
from trainer.training import checkpoints, run_store
from trainer.training.finalize import finalize_run
from trainer.training.train_loop import build_compiled_model

VIEW_SETTINGS = ("predict.zooms", "predict.shifts", "predict.flips")


def volume(patient: str, y_true: np.ndarray, probability: np.ndarray) -> PredictedVolume:
    return PredictedVolume(
        patient, y_true.astype(np.uint8), probability.astype(np.float32)[..., None]
    )


def organ() -> np.ndarray:
    """An organ in two of three slices of 12 x 16."""
    mask = np.zeros((3, 12, 16), bool)
    mask[:2, 4:9, 4:12] = True
    return mask


def tune(volumes: list[PredictedVolume]) -> tuple[Predict, dict[tuple[str, str], bool]]:
    """The chosen settings, and whether each tried value was chosen."""

    def measure(predict: Predict) -> float:
        return fmean(compute_patient_dice(volumes, predict, ["organ"]).values())

    chosen, dice, tried = choose_settings(Predict(), mask_steps(["organ"]), measure)
    assert dice == measure(chosen)
    return chosen, {(each.setting, each.value): each.chosen for each in tried}


def test_what_does_not_help_stays_as_it_is() -> None:
    chosen, tried = tune([volume("a", organ(), organ() * 0.9)])
    assert chosen == Predict()
    assert [setting for setting, is_chosen in tried.items() if is_chosen] == [
        ("predict", "as configured")
    ]
    assert ("predict.fill_holes", '"patient"') in tried


def test_a_threshold_is_chosen_where_the_probabilities_are_low() -> None:
    chosen, tried = tune([volume("a", organ(), np.where(organ(), 0.42, 0.37))])
    assert chosen == Predict(threshold=0.4)
    assert tried["predict.threshold", "0.4"]


def test_an_organ_that_has_two_parts_in_a_slice_keeps_both_in_its_volume() -> None:
    """By slice, the step would remove a part of the organ; by patient, only what is far away."""
    y_true = organ()
    y_true[1, 6] = False  # Two parts in the second slice, connected by the first.
    far = np.zeros_like(y_true)
    far[2, 0, :6] = True
    chosen, _ = tune([volume("a", y_true, (y_true | far) * 0.9), volume("b", organ(), organ())])
    assert chosen == Predict(largest_component="patient")


def test_a_gain_must_exceed_the_margin() -> None:
    scores = {(): 0.5, (0.02,): 0.5 + MIN_GAIN / 2, (0.05,): 0.5 + 2 * MIN_GAIN}

    def measure(predict: Predict) -> float:
        return scores[predict.shifts]

    for values, expected in (([(0.02,)], ()), ([(0.02,), (0.05,)], (0.05,))):
        chosen, dice, tried = choose_settings(Predict(), [Step("shifts", values)], measure)
        assert (chosen.shifts, dice) == (expected, scores[expected])
        assert [each.chosen for each in tried[1:]] == [value == expected for value in values]
        assert [each.dice for each in tried[:2]] == [0.5, scores[0.02,]]


def test_classes_have_thresholds_of_their_own() -> None:
    y_true = organ() + 2 * np.roll(organ(), 1, axis=0)
    y_true[y_true == 3] = 1
    probability = np.stack([0.8 * (y_true == 1), 0.42 * (y_true == 2)], -1).astype(np.float32)
    volumes = [PredictedVolume("a", y_true.astype(np.uint8), probability)]
    names = ["one", "two"]
    chosen, dice, tried = choose_settings(
        Predict(),
        mask_steps(names),
        lambda predict: compute_patient_dice(volumes, predict, names)["a"],
    )
    # 0.5 is what they have.
    assert [each.value for each in tried[1:]].count("0.5") == 0
    # 0.42 of 0.42 + 0.58.
    assert (chosen, dice) == (Predict(class_thresholds={"two": 0.4}), 1.0)


def test_flips_are_those_of_the_training() -> None:
    assert dict(view_steps(Augment()))["flips"] == []
    steps = dict(view_steps(Augment(flip_horizontal=0.5, flip_vertical=0.1)))
    assert steps["flips"] == [(), ("horizontal",), ("vertical",), ("horizontal", "vertical")]


def test_what_was_configured_can_be_removed() -> None:
    steps = [*view_steps(Augment()), *mask_steps(["organ"])]
    start = Predict(zooms=(1.0, 1.5), shifts=(0.1,), largest_component="slice", threshold=0.6)

    def measure(predict: Predict) -> float:
        """Each setting that differs from the default costs 0.1."""
        return 1.0 - 0.1 * len(predict.model_dump(exclude_defaults=True))

    assert choose_settings(start, steps, measure)[:2] == (Predict(), 1.0)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Storage]:
    """A finished run whose prediction was tuned, and which keeps the largest part of a patient."""
    root = tmp_path_factory.mktemp("tuned")
    config = Config.model_validate(
        {
            "storage": {"root": str(root)},
            "data": {"source": "phantom", "phantom": FEW_SLICES},
            "network": NETWORK,
            "train": {"batch_size": 4, "epochs": 1},
            "predict": {
                "tune_on_validation": True,
                "largest_component": "patient",
                "batch_size": 3,
            },
        }
    )
    dataset = prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
    run = run_store.run_storage(config)
    run_store.create_run(run, config, dataset)
    model = build_compiled_model(config)
    # Untrained, it predicts a part of every slice.
    model.weights[-1].assign(model.weights[-1] * 0.0)
    history = [{"epoch": 1.0, "loss": 0.5, "val_loss": 0.8, "val_dice_coef": 0.5}]
    checkpoints.save_checkpoint(run.child("checkpoints"), model.get_weights(), history)
    finalize_run(run, config, history, None)
    return config, run.child("bundle")


def test_a_run_ends_with_the_settings_whose_dice_evaluate_finds(
    tuned: tuple[Config, Storage], tmp_path: Path
) -> None:
    config, source = tuned
    assert isinstance(source, LocalStorage)
    manifest, own = bundle.verify(source.path), load_config(source.path / "config.toml")
    assert manifest.fingerprint == own.fingerprint()
    tried = manifest.tried_settings
    assert {each.setting for each in tried} == {
        "predict",
        "predict.zooms",
        "predict.shifts",
        "predict.threshold",
        "predict.largest_component",
        "predict.fill_holes",
    }
    chosen = [each for each in tried if each.chosen]
    assert chosen[0].setting == "predict"
    assert len(chosen) > 1, "nothing is tested if the first settings are the best"
    assert own.predict.post_processing == manifest.post_processing
    assert (own.predict.threshold, own.predict.zooms) == (manifest.threshold, manifest.zooms)
    dataset = prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
    evaluation = evaluate(
        source, dataset, "valid", config.data, config.predict, LocalStorage(tmp_path)
    )
    assert evaluation.summary_of("dice").mean == pytest.approx(chosen[-1].dice, abs=1e-6)


def test_the_command_writes_another_bundle(tuned: tuple[Config, Storage], tmp_path: Path) -> None:
    _, source = tuned
    output = tmp_path / "again"
    words = ["tune-bundle", source.url, str(output)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert f"bundle: {output}" in done.stdout
    before, after = bundle.read_manifest(source), bundle.verify(output)
    assert after.files["weights.npz"] == before.files["weights.npz"]
    # It starts with what the first one has chosen.
    final = [each for each in before.tried_settings if each.chosen][-1].dice
    assert after.tried_settings[0].dice == pytest.approx(final, abs=1e-6)
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, BundleError)
    ensemble = LocalStorage(tmp_path / "ensemble")
    manifest = export_ensemble([source, LocalStorage(output)], "both", ensemble)
    assert manifest.tried_settings == (), "each member has its own"
    assert manifest.post_processing.largest_component == "patient"
    fresh = CliRunner().invoke(app, ["tune-bundle", ensemble.url, str(tmp_path / "none")])
    assert "is an ensemble" in str(fresh.exception)
    assert not (tmp_path / "none").exists()


def test_patients_who_chose_the_settings_are_not_test_patients(
    tuned: tuple[Config, Storage], tmp_path: Path
) -> None:
    config, source = tuned
    dataset = prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
    test = dataset.select("test")
    # As another data.valid_fraction or splits.json would do.
    moved = replace(dataset, slices=(replace(test[0], split="valid"),))
    output = LocalStorage(tmp_path / "moved")
    passes: list[tuple[int, int | None, str]] = []
    manifest = tune_bundle(source, moved, config, output, lambda *progress: passes.append(progress))
    before = bundle.read_manifest(source).patients
    assert manifest.patients["train"] == before["train"]
    assert set(manifest.patients["valid"]) == {*before["valid"], test[0].patient}
    with pytest.raises(DataError, match=f"data leakage: .*of the test split .*{test[0].patient}"):
        evaluate(output, dataset, "test", config.data, config.predict, LocalStorage(tmp_path))
    views = [each for each in manifest.tried_settings if each.setting in VIEW_SETTINGS]
    # The settings to start from are predicted once, also for the masks, and so are the last views.
    is_again = any(each.chosen for each in views) and not views[-1].chosen
    assert len(passes) == 1 + len(views) + is_again
    assert passes[0][2] == "tuning the prediction on 1 validation slices"
    # The start, each other value of a view, and the chosen views once more.
    assert {total for _, total, _ in passes} == {1 + len(views) + 1}
