"""best_model.h5: the UNet of the Antillia projects and ours give the same probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from typer.testing import CliRunner

from contract import bundle
from contract.config import Config
from contract.errors import BundleError, TrainingError
from contract.storage import LocalStorage
from trainer.__main__ import app
from trainer.export import saved_model
from trainer.export.antillia_weights import FILE_NAME, import_weights, save_weights
from trainer.training.train_loop import seeded_initializers

LEVELS, FILTERS, SIDE = 3, 4, 32
SLICES = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 1), np.uint8)
CONFIG = f"""
[model]
model = "TensorflowUNet"
image_width = {SIDE}
image_height = {SIDE}
image_channels = 1
base_filters = {FILTERS}
num_layers = {LEVELS}
base_kernels = (5, 5)
dilation = (2, 2)
dropout_rate = 0.1
input_normalize = %s

[train]
image_datapath = "train/images"
mask_datapath = "train/masks"
"""


def their_network(is_normalized: bool) -> keras.Model:
    """The network as those projects build it, with random weights."""
    layers = keras.layers
    inputs = keras.Input((SIDE, SIDE, 1))
    x = layers.Lambda(lambda values: values / 255)(inputs) if is_normalized else inputs

    def convolve(x: tf.Tensor, level: int) -> tf.Tensor:
        for _ in range(2):
            kernel, dilation = max(5 - 2 * level, 3), max(2 - level, 1)
            x = layers.Conv2D(
                FILTERS * 2**level,
                kernel,
                dilation_rate=dilation,
                padding="same",
                activation="relu",
                bias_initializer="random_normal",
            )(x)
            x = layers.Dropout(0.1 * level)(x)
        return x

    features = []
    for level in range(LEVELS):
        x = convolve(layers.MaxPool2D()(x) if level else x, level)
        features.append(x)
    for level in reversed(range(LEVELS - 1)):
        x = layers.Conv2DTranspose(FILTERS * 2**level, 2, strides=2, padding="same")(x)
        x = convolve(layers.concatenate([x, features[level]]), level)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


@pytest.fixture
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[keras.Model, Path, Path]:
    """A network of theirs, its weights, and its settings."""
    is_normalized = getattr(request, "param", True)
    with seeded_initializers(3):
        model = their_network(is_normalized)
    if not is_normalized:
        # As after a training: activations of the size that intensities of 0..1 would give.
        kernel, bias = model.layers[1].get_weights()
        model.layers[1].set_weights([kernel / 255, bias])
    settings, weights = tmp_path / "train_eval_infer.config", tmp_path / FILE_NAME
    settings.write_text(CONFIG % is_normalized)
    model.save_weights(weights, save_format="h5")
    return model, weights, settings


def predict(folder: Path) -> np.ndarray:
    graph = tf.saved_model.load(str(folder / "saved_model"))
    return graph.signatures["serving_default"](slices=tf.constant(SLICES))["probability"].numpy()


@pytest.mark.parametrize("theirs", [True, False], indirect=True, ids=["normalized", "raw"])
def test_a_bundle_predicts_what_their_network_does(
    theirs: tuple[keras.Model, Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, weights, settings = theirs
    command = ["import-weights", str(settings), str(weights), str(tmp_path / "bundle")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "cannot detect data leakage" in caplog.text
    expected = model(tf.constant(SLICES, tf.float32)).numpy()
    assert expected.std() > 1e-3
    assert np.abs(predict(tmp_path / "bundle") - expected).max() < 1e-5
    manifest = bundle.verify(tmp_path / "bundle")
    assert (manifest.patients, manifest.dataset) == ({}, "unknown")


def test_a_complete_model_is_read_too(
    theirs: tuple[keras.Model, Path, Path], tmp_path: Path
) -> None:
    model, _, _ = theirs
    with pytest.warns(UserWarning, match="legacy"):
        model.save(tmp_path / "model.h5", save_format="h5")
    import_weights(config("normalized"), tmp_path / "model.h5", LocalStorage(tmp_path / "bundle"))
    expected = model(tf.constant(SLICES, tf.float32)).numpy()
    assert np.abs(predict(tmp_path / "bundle") - expected).max() < 1e-5


@pytest.mark.parametrize("intensities", ["normalized", "raw"])
def test_their_network_predicts_what_a_run_learned(intensities: str, tmp_path: Path) -> None:
    settings = config(intensities)
    with seeded_initializers(1):
        ours = saved_model.build_inference_model(settings.network, 1, 1)
    save_weights(settings, ours.get_weights(), LocalStorage(tmp_path))
    model = their_network(intensities == "normalized")
    model.load_weights(tmp_path / FILE_NAME)
    expected = ours(tf.constant(SLICES / 255, tf.float32)).numpy()
    assert np.abs(model(tf.constant(SLICES, tf.float32)).numpy() - expected).max() < 1e-5


def test_files_of_other_networks_are_named(
    theirs: tuple[keras.Model, Path, Path], tmp_path: Path
) -> None:
    _, weights, _ = theirs
    destination = LocalStorage(tmp_path / "bundle")
    with pytest.raises(TrainingError, match="has weights for 13 layers, while the network has 18"):
        import_weights(config("normalized", num_layers=4), weights, destination)
    with pytest.raises(TrainingError, match=r"best_model\.h5 has the shapes .* encoder_0_1_conv"):
        import_weights(config("normalized", base_filters=8), weights, destination)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"best_model\.h5 is not a complete \.h5 file"):
        import_weights(config("normalized"), weights, destination)
    with pytest.raises(TrainingError, match=r"nothing\.h5 is not a complete \.h5 file"):
        import_weights(config("normalized"), tmp_path / "nothing.h5", destination)
    assert not list(destination.list_objects())


def test_a_bundle_is_never_replaced(theirs: tuple[keras.Model, Path, Path], tmp_path: Path) -> None:
    _, weights, _ = theirs
    destination = LocalStorage(tmp_path / "bundle")
    import_weights(config("normalized"), weights, destination)
    with pytest.raises(BundleError, match="has a bundle already"):
        import_weights(config("normalized"), weights, destination)


def config(intensities: str, **network: Any) -> Config:
    """The settings of our network."""
    base: dict[str, Any] = {
        "image_size": SIDE,
        "num_layers": LEVELS,
        "base_filters": FILTERS,
        "base_kernels": 5,
        "dilation": 2,
        "normalization": "none",
    }
    train = {"antillia_weights": intensities}
    return Config.model_validate({"network": base | network, "train": train})
