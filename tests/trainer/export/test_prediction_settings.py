"""A second bundle of the same weights: its masks are those of the settings that it was given."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from contract import bundle
from contract.config import Config
from contract.errors import BundleError, ConfigError
from contract.storage import LocalStorage
from tests.small import WINDOW
from trainer.__main__ import app
from trainer.export import saved_model
from trainer.export.prediction_settings import export_with_settings, load_changed_config
from trainer.training.finalize import bundle_metadata
from trainer.training.run_store import TrainingDataInfo
from trainer.training.train_loop import seeded_initializers

SLICES = np.random.default_rng(0).integers(0, 255, (2, 80, 64, 1), np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that resizes slices to 32 x 32."""
    folder = tmp_path_factory.mktemp("trained") / "bundle"
    network = {"image_size": 32, "num_layers": 2, "base_filters": 4}
    config = Config.model_validate({"run": {"name": "resized"}, "network": network})
    with seeded_initializers(1):
        model = saved_model.build_inference_model(config.network, 1, 1)
    patients = {"train": ("a", "b"), "valid": ("c",)}
    data = TrainingDataInfo("0123456789abcdef", patients, WINDOW)
    metadata = bundle_metadata(config, data, {"val_dice_coef": 0.5}, None)
    saved_model.export_bundle(model, config, metadata, LocalStorage(folder))
    return folder


def predict(folder: Path) -> dict[str, np.ndarray]:
    graph = tf.saved_model.load(str(folder / "saved_model"))
    outputs = graph.signatures["serving_default"](slices=tf.constant(SLICES))
    return {name: value.numpy() for name, value in outputs.items()}


def test_the_same_weights_predict_by_sliding_window(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, files = predict(trained), sorted(trained.rglob("*"))
    words = ["predict.sliding_window=true", "predict.overlap=0.75", "predict.threshold=0.45"]
    command = ["export", str(trained), str(tmp_path / "windows"), *words]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "trained on slices of 32 x 32 pixels" in caplog.text
    old, new = bundle.verify(trained), bundle.verify(tmp_path / "windows")
    assert (old.threshold, new.threshold) == (0.5, 0.45)
    assert (new.patients, new.dataset, new.metrics) == (old.patients, old.dataset, old.metrics)
    assert new.files["weights.npz"] == old.files["weights.npz"]
    assert sorted(trained.rglob("*")) == files

    config = load_changed_config(LocalStorage(trained), words)
    with np.load(trained / "weights.npz") as weights:
        state = [weights[name] for name in sorted(weights.files)]
    model = saved_model.build_inference_model(config.network, 1, 1, state)
    module = saved_model.SegmentationModule(model, config, WINDOW)
    expected, after = module.segment(tf.constant(SLICES)), predict(tmp_path / "windows")
    assert np.abs(after["probability"] - expected["probability"]).max() < 1e-5
    assert np.abs(after["probability"] - before["probability"]).max() > 1e-3


def test_a_setting_that_the_training_fixed_is_rejected(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"export cannot change network\.image_size") as error:
        load_changed_config(LocalStorage(trained), ["network.image_size=64"])
    assert "predict.fill_holes" in str(error.value)
    assert "tune_on_validation" not in str(error.value)
    with pytest.raises(ConfigError, match=r"export cannot tune .*`segfleet tune-bundle BUNDLE OUT"):
        load_changed_config(LocalStorage(trained), ["predict.tune_on_validation=true"])
    with pytest.raises(ConfigError, match=r"predict\.overlap .* = 0\.3 must be 0\.0, 0\.5"):
        load_changed_config(LocalStorage(trained), ["predict.overlap=0.3"])


def test_a_bundle_is_never_replaced(trained: Path) -> None:
    source = LocalStorage(trained)
    config = load_changed_config(source, ["predict.threshold=0.4"])
    with pytest.raises(BundleError, match="has a bundle already"):
        export_with_settings(source, config, source)
    assert bundle.verify(trained).threshold == 0.5
