"""The training loop in this process: resuming, initial weights, preview slices."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from contract.config import Config
from contract.imaging.intensity_scaling import IntensityScaling
from contract.storage import LocalStorage, Storage
from tests.small import FEW_SLICES, NETWORK, balance
from trainer.data import cache, pipeline
from trainer.data.dataset_index import intensity_scaling, prepare_dataset
from trainer.data.pipeline import WorkerRank
from trainer.data.preprocessing import standardize
from trainer.export.saved_model import SegmentationModule, build_inference_model
from trainer.training import checkpoints, train_loop
from trainer.training.model_state import WeightAverages, state_variables
from trainer.training.run_store import create_run, run_storage


def small_config(root: Path, epochs: int) -> Config:
    return Config.model_validate(
        {
            "run": {"seed": 3},
            "storage": {"root": str(root)},
            "data": {"phantom": FEW_SLICES},
            "network": {**NETWORK, "dropout_rate": 0.3},
            "train": {
                "num_workers": 1,
                "epochs": epochs,
                "batch_size": 4,
                "accumulate": 2,
                "ema_decay": 0.5,
                "lr_schedule": "constant",
                "preview_images": 1,
            },
        }
    )


def without_seconds(history: tuple[dict[str, float], ...]) -> list[dict[str, float]]:
    return [{k: v for k, v in metrics.items() if k != "seconds"} for metrics in history]


@pytest.mark.parametrize("frozen_epochs", [0.0, 1.5])
def test_a_resumed_training_equals_an_uninterrupted_one(
    frozen_epochs: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is resumed while the encoder is frozen."""
    # TensorFlow is initialized already, after which its threads cannot be configured.
    monkeypatch.setattr(train_loop, "configure_process", lambda train: None)
    loaded: list[str] = []
    monkeypatch.setattr(
        train_loop, "load_encoder_weights", lambda model, config, run: loaded.append(run.url)
    )
    frozen = {"train.freeze_encoder_epochs": frozen_epochs}
    config = small_config(tmp_path / "uninterrupted", 2).with_values(frozen)
    dataset = prepare_dataset(config.data, 3, LocalStorage(tmp_path / "data"))
    run = run_storage(config)
    create_run(run, config, dataset)
    expected = train_loop.train(config, dataset, run, train_loop.WorkerContext())
    assert run.exists("previews/epoch-0002.png")

    def stop(metrics: dict[str, float]) -> None:
        raise InterruptedError

    interrupted = run_storage(small_config(tmp_path / "interrupted", 2))
    ctx = train_loop.WorkerContext(report_epoch=stop)
    with contextlib.suppress(InterruptedError):
        train_loop.train(config, dataset, interrupted, ctx)
    reported: list[dict[str, float]] = []
    ctx = train_loop.WorkerContext(report_epoch=reported.append)
    resumed = train_loop.train(config, dataset, interrupted, ctx)
    assert [metrics["epoch"] for metrics in reported] == [2.0]
    assert without_seconds(resumed) == without_seconds(expected)
    # Pre-trained weights are for a network without a checkpoint.
    assert loaded == [run.url, interrupted.url]
    assert_averages_were_validated(config, run, expected)


def assert_averages_were_validated(
    config: Config, run: Storage, history: Sequence[dict[str, float]]
) -> None:
    """The weights in a checkpoint are the averages, and the validation was of them."""
    latest = checkpoints.load_latest(run.child("checkpoints"))
    assert latest
    model = train_loop.build_compiled_model(config)
    for variable, value in zip(state_variables(model), latest[1], strict=True):
        variable.assign(value)
    averages = [variable.numpy() for variable in model.optimizer.averages]
    assert any(
        not np.array_equal(average, weight.numpy())
        for average, weight in zip(averages, model.trainable_variables, strict=True)
    )
    assert val_loss(model, config) == pytest.approx(history[-1]["val_loss"], rel=1e-4)
    WeightAverages(model).exchange()
    assert val_loss(model, config) != pytest.approx(history[-1]["val_loss"], rel=1e-4)


def val_loss(model: keras.Model, config: Config) -> float:
    """The loss of the validation slices."""
    root = Path(config.storage.root).parent / "data"
    dataset = prepare_dataset(config.data, 3, LocalStorage(root))
    cached = cache.load_split(
        dataset, "valid", config.network, config.storage.cache_gb, config.data
    )
    scaling = intensity_scaling(dataset, config.data)
    batches = pipeline.validation_dataset(cached, scaling, config.train, WorkerRank())
    steps = pipeline.validation_steps(config.train, cached.num_samples)
    return model.evaluate(batches.take(steps), verbose=0, return_dict=True)["loss"]


def test_previews_are_predicted_as_training_sees_them() -> None:
    config = Config.model_validate({"network": NETWORK})
    scaling = IntensityScaling(40.0, 200.0, mean=120.0, std=30.0)
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    model = build_inference_model(config.network, 1, 1)
    balance(model.weights[-1], model(standardize(images, scaling)))
    predict = train_loop.create_predictor(config, scaling)
    expected = model(standardize(images, scaling)).numpy()[..., 0] > 0.5
    assert (np.stack(predict(model.get_weights(), list(images))) == expected).mean() > 0.999
    unscaled = model(images).numpy()[..., 0] > 0.5
    assert (unscaled != expected).mean() > 0.01


def test_previews_of_windows_are_those_of_a_bundle_with_sliding_windows() -> None:
    predict = {"sliding_window": True, "window_size": 64, "overlap": 0.0}
    config = Config.model_validate({"network": NETWORK, "predict": predict})
    scaling = IntensityScaling.from_window(0.0, 255.0)
    raw = np.random.default_rng(0).integers(0, 256, (1, 70, 150, 1), np.int32)
    model = build_inference_model(config.network, 1, 1)
    module = SegmentationModule(model, config, scaling)
    balance(model.weights[-1], module.segment(tf.constant(raw))["probability"])
    expected = module.segment(tf.constant(raw))["mask"][0].numpy()
    predicted = train_loop.create_window_predictor(config, scaling)(
        model.get_weights(), [(raw[0] / 255).astype(np.float32)]
    )
    assert 0.0 < expected.mean() < 1.0
    assert (predicted[0] == expected).mean() > 0.999


def test_the_seed_determines_the_initial_weights() -> None:
    def weights(seed: int) -> list[np.ndarray]:
        config = Config.model_validate({"run": {"seed": seed}, "network": NETWORK})
        return train_loop.build_compiled_model(config).get_weights()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
