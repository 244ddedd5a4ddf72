"""best_model.h5: the UNet of the Antillia projects and ours give the same probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from typer.testing import CliRunner

from contract import bundle
from contract.config import Config
from contract.config.loader import load_config
from contract.errors import BundleError, ConfigError, TrainingError
from contract.storage import LocalStorage
from trainer.__main__ import app
from trainer.export import saved_model
from trainer.export.antillia_weights import FILE_NAME, save_weights
from trainer.training.train_loop import seeded_initializers
from trainer.training.weights_import import import_weights

LEVELS, FILTERS, SIDE = 3, 4, 32
SLICES = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
CONFIG = """
[model]
model = "TensorflowUNet"
image_width = {side}
image_height = {side}
image_channels = {channels}
base_filters = {filters}
num_layers = {levels}
base_kernels = (5, 5)
dilation = (2, 2)
dropout_rate = 0.1
input_normalize = {input_normalize}

[dataset]
image_normalize = {image_normalize}
color_order = "{order}"

[train]
image_datapath = "train/images"
mask_datapath = "train/masks"
"""


@dataclass(frozen=True)
class Theirs:
    """A network as those projects build and feed it.

    Attributes:
        divisions: How often intensities are divided by 255.
        channels: 1 or 3.
        order: That of the channels of the slices that it was trained on.
    """

    divisions: int = 1
    channels: int = 1
    order: str = "bgr"

    def build(self) -> keras.Model:
        """The network with random weights."""
        layers = keras.layers
        inputs = keras.Input((SIDE, SIDE, self.channels))
        x = inputs
        for _ in range(self.divisions):
            x = layers.Lambda(lambda values: values / 255)(x)

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
        model = keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))
        # As after a training: activations of the size that intensities of 0..1 would give.
        first = next(layer for layer in model.layers if layer.weights)
        kernel, bias = first.get_weights()
        first.set_weights([kernel * 255.0 ** (self.divisions - 1), bias])
        return model

    def predict(self, model: keras.Model) -> np.ndarray:
        """The probabilities of SLICES, whose channels are RGB."""
        slices = SLICES[..., : self.channels]
        ordered = slices[..., ::-1] if self.order == "bgr" else slices
        return model(tf.constant(ordered, tf.float32)).numpy()

    def settings(self, folder: Path) -> Path:
        """Its file."""
        file = folder / "train_eval_infer.config"
        text = CONFIG.format(
            side=SIDE,
            channels=self.channels,
            filters=FILTERS,
            levels=LEVELS,
            input_normalize=self.divisions > 0,
            image_normalize=self.divisions > 1,
            order=self.order,
        )
        file.write_text(text)
        return file


CASES = {
    "normalized": Theirs(),
    "raw": Theirs(divisions=0),
    "normalized twice": Theirs(divisions=2),
    "bgr": Theirs(channels=3),
    "rgb": Theirs(channels=3, order="rgb"),
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The weights of the first case."""
    file = tmp_path / FILE_NAME
    with seeded_initializers(3):
        Theirs().build().save_weights(file, save_format="h5")
    return file


def predict(folder: Path, channels: int = 1) -> np.ndarray:
    graph = tf.saved_model.load(str(folder / "saved_model"))
    slices = tf.constant(SLICES[..., :channels])
    return graph.signatures["serving_default"](slices=slices)["probability"].numpy()


@pytest.mark.parametrize("theirs", CASES.values(), ids=list(CASES))
def test_a_bundle_predicts_what_their_network_does(
    theirs: Theirs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / FILE_NAME
    with seeded_initializers(3):
        model = theirs.build()
    model.save_weights(file, save_format="h5")
    words = [str(theirs.settings(tmp_path)), str(file), str(tmp_path / "bundle")]
    done = CliRunner().invoke(app, ["import-weights", *words], catch_exceptions=False)
    assert done.exit_code == 0
    assert "cannot detect data leakage" in caplog.text
    expected = theirs.predict(model)
    assert expected.std() > 1e-3
    assert np.abs(predict(tmp_path / "bundle", theirs.channels) - expected).max() < 1e-5
    manifest = bundle.verify(tmp_path / "bundle")
    assert (manifest.patients, manifest.dataset) == ({}, "unknown")


@pytest.mark.parametrize("theirs", CASES.values(), ids=list(CASES))
def test_their_network_predicts_what_a_run_learned(theirs: Theirs, tmp_path: Path) -> None:
    settings = load_config(theirs.settings(tmp_path))
    with seeded_initializers(1):
        ours = saved_model.build_inference_model(settings.network, 1, theirs.channels)
    save_weights(settings, ours.get_weights(), LocalStorage(tmp_path))
    model = theirs.build()
    model.load_weights(tmp_path / FILE_NAME)
    expected = ours(tf.constant(SLICES[..., : theirs.channels] / 255, tf.float32)).numpy()
    assert np.abs(theirs.predict(model) - expected).max() < 1e-5


def test_a_complete_model_is_read_too(tmp_path: Path) -> None:
    with seeded_initializers(3):
        model = Theirs().build()
    with pytest.warns(UserWarning, match="legacy"):
        model.save(tmp_path / "model.h5", save_format="h5")
    import_weights(config(), tmp_path / "model.h5", LocalStorage(tmp_path / "bundle"))
    assert np.abs(predict(tmp_path / "bundle") - Theirs().predict(model)).max() < 1e-5


def test_files_of_other_networks_are_named(weights: Path, tmp_path: Path) -> None:
    destination = LocalStorage(tmp_path / "bundle")
    with pytest.raises(TrainingError, match="has weights for 13 layers, while the network has 18"):
        import_weights(config(num_layers=4), weights, destination)
    with pytest.raises(TrainingError, match=r"best_model\.h5 has the shapes .* encoder_0_1_conv"):
        import_weights(config(base_filters=8), weights, destination)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"best_model\.h5 is not a complete \.h5 file"):
        import_weights(config(), weights, destination)
    with pytest.raises(TrainingError, match=r"nothing\.h5 is not a complete \.h5 file"):
        import_weights(config(), tmp_path / "nothing.h5", destination)
    assert not list(destination.list_objects())


def test_the_input_of_the_network_is_not_guessed(weights: Path, tmp_path: Path) -> None:
    unknown = config().with_values({"train.antillia_weights": "none"})
    with pytest.raises(ConfigError, match=r'antillia_weights = "none": set it to "raw"'):
        import_weights(unknown, weights, LocalStorage(tmp_path / "bundle"))


def test_a_bundle_is_never_replaced(weights: Path, tmp_path: Path) -> None:
    destination = LocalStorage(tmp_path / "bundle")
    import_weights(config(), weights, destination)
    with pytest.raises(BundleError, match="has a bundle already"):
        import_weights(config(), weights, destination)


def config(**network: Any) -> Config:
    """The settings of our network."""
    base: dict[str, Any] = {
        "image_size": SIDE,
        "num_layers": LEVELS,
        "base_filters": FILTERS,
        "base_kernels": 5,
        "dilation": 2,
        "normalization": "none",
    }
    train = {"antillia_weights": "normalized"}
    return Config.model_validate({"network": base | network, "train": train})
