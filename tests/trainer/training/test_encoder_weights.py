"""Pre-trained weights of an encoder: read from a file, and the same one until the run ends."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tf_keras as keras

from contract.config import Config
from contract.errors import StorageError, TrainingError
from contract.storage import LocalStorage, open_storage
from trainer.networks.encoders import ENCODER
from trainer.networks.registry import build_network
from trainer.training import encoder_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of keras.applications with random weights of EfficientNet-B0."""
    keras.mixed_precision.set_global_policy("float32")
    file = tmp_path_factory.mktemp("weights") / "b0.h5"
    application = keras.applications.EfficientNetB0(include_top=False, weights=None)
    application.save_weights(file)
    return file


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build_network(config_of("absent.h5").network, 1, 1).training_model


def config_of(address: Path | str) -> Config:
    settings = {"name": "efficient_unet", "image_size": 32, "encoder_weights": str(address)}
    return Config.model_validate({"network": settings})


def start(config: Config, run: LocalStorage) -> None:
    encoder_weights.check_encoder_weights("run 'a'", run, config.network, is_needed=True)
    encoder_weights.record_encoder_weights(run, config.network)


def address_of(file: Path, s3: str) -> str:
    open_storage(s3).upload_file("pretrained/b0.h5", file)
    return f"{s3}/pretrained/b0.h5"


@pytest.mark.parametrize("address", [lambda file, s3: str(file), address_of])
def test_every_worker_loads_the_weights_of_the_file(
    address: Callable[[Path, str], str],
    weights: Path,
    network: keras.Model,
    s3: str,
    tmp_path: Path,
) -> None:
    config, run = config_of(address(weights, s3)), LocalStorage(tmp_path)
    start(config, run)
    encoder = network.get_layer(ENCODER)
    encoder.set_weights([np.zeros_like(value) for value in encoder.get_weights()])
    decoder = network.get_layer("decoder_0_1_conv").get_weights()
    encoder_weights.load_encoder_weights(network, config, run)
    expected = keras.applications.EfficientNetB0(include_top=False, weights=None)
    expected.load_weights(weights)
    for name in ("stem_conv", "block4b_se_reduce", "top_bn"):
        loaded = encoder.get_layer(name).get_weights()
        for value, other in zip(loaded, expected.get_layer(name).get_weights(), strict=True):
            assert np.array_equal(value, other)
    assert np.array_equal(network.get_layer("decoder_0_1_conv").get_weights()[0], decoder[0])


def small_file(folder: Path, filters: int) -> Path:
    """A file of Keras with the weights of another model."""
    file = folder / "small.h5"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(filters, 1)]).save_weights(file)
    return file


def test_weights_of_another_model_are_an_error_that_names_the_file(
    network: keras.Model, tmp_path: Path
) -> None:
    file, run = small_file(tmp_path, 2), LocalStorage(tmp_path / "run")
    start(config_of(file), run)
    with pytest.raises(
        TrainingError,
        match=r"^network\.encoder_weights = '.*small\.h5' has weights for 1 layers.*: use "
        r"efficientnetb0_notop\.h5 of keras\.applications",
    ):
        encoder_weights.load_encoder_weights(network, config_of(file), run)


def test_a_complete_model_has_its_weights_in_a_group(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1, name="conv")])
    with pytest.warns(UserWarning, match="HDF5"):
        model.save(tmp_path / "model.h5")
    run = LocalStorage(tmp_path / "run")
    start(config_of(tmp_path / "model.h5"), run)
    assert run.exists(encoder_weights.RECORD)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def write_text(file: Path) -> None:
    file.write_text("no weights", encoding="utf-8")


def save_in_another_format(file: Path) -> None:
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)]).save_weights(
        file.with_name("small.weights.h5")
    )
    file.with_name("small.weights.h5").replace(file)


@pytest.mark.parametrize("damage", [truncate, write_text, save_in_another_format])
def test_a_damaged_file_starts_no_run(damage: Callable[[Path], None], tmp_path: Path) -> None:
    file, run = small_file(tmp_path, 2), LocalStorage(tmp_path / "run")
    damage(file)
    with pytest.raises(TrainingError, match=r"small\.h5' is not a complete \.h5 file .*: use eff"):
        start(config_of(file), run)
    assert run.list_objects() == []


def test_a_missing_file_starts_no_run(tmp_path: Path, s3: str) -> None:
    run = LocalStorage(tmp_path / "run")
    for address in (tmp_path / "b0.h5", f"{s3}/b0.h5"):
        with pytest.raises(TrainingError, match=r"encoder_weights = '.*b0\.h5' does not exist: na"):
            start(config_of(address), run)
    with pytest.raises(StorageError, match=r"encoder_weights = 'https://.*: .* is not a storage"):
        start(config_of("https://host/b0.h5"), run)


def test_a_changed_file_is_noticed_by_the_command_and_by_each_worker(
    network: keras.Model, tmp_path: Path
) -> None:
    config, run = config_of(small_file(tmp_path, 2)), LocalStorage(tmp_path / "run")
    start(config, run)
    encoder_weights.check_encoder_weights("run 'a'", run, config.network, is_needed=False)
    file = small_file(tmp_path, 3)
    for notice in (
        lambda: start(config, run),
        lambda: encoder_weights.load_encoder_weights(network, config, run),
    ):
        with pytest.raises(TrainingError, match=r"is not the file that run .*restore that file"):
            notice()
    file.unlink()
    encoder_weights.check_encoder_weights("run 'a'", run, config.network, is_needed=False)


def test_frozen_random_weights_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"name": "efficient_unet", "trainable_encoder_layers": 61}
    config = Config.model_validate({"network": settings})
    with caplog.at_level(logging.WARNING):
        for each in (config, Config(), config.with_values({"train.start_from": "demo"})):
            encoder_weights.warn_of_frozen_random_weights(each)
        frozen = Config().with_values({"train.freeze_encoder_epochs": 1})
        encoder_weights.warn_of_frozen_random_weights(frozen)
    assert len(caplog.messages) == 2
    assert "trainable_encoder_layers = 61" in caplog.messages[0]
    assert "freeze_encoder_epochs = 1 " in caplog.messages[1]
