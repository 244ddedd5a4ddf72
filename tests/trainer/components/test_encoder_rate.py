"""A frozen encoder does not move, and then it does, in one and the same graph."""

from collections.abc import Iterator

import numpy as np
import pytest
import tf_keras as keras

from contract.config import Config, Train
from tests.small import NETWORK
from trainer.components.encoder_rate import set_encoder_lr_factor
from trainer.components.lr_schedule import encoder_lr_factor
from trainer.networks.registry import encoder_layers
from trainer.training.train_loop import build_compiled_model


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


def fit(model: keras.Model, factor: float | None) -> None:
    """Three steps with a factor of the learning rate of the encoder; None: it has none."""
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    model.optimizer.learning_rate = 0.01
    if factor is not None:
        set_encoder_lr_factor(model, factor)
    model.fit(
        images, np.round(images), sample_weight=np.ones(2), epochs=3, verbose=0, shuffle=False
    )


def split_values(model: keras.Model) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights of the encoder, with its moving statistics, and the others."""
    encoder = {id(weight) for layer in encoder_layers(model) for weight in layer.weights}
    values = ([], [])
    for weight in model.weights:
        values[id(weight) not in encoder].append(weight.numpy())
    return values


def is_equal(before: list[np.ndarray], now: list[np.ndarray]) -> list[bool]:
    return [np.array_equal(a, b) for a, b in zip(before, now, strict=True)]


@pytest.mark.parametrize(
    ("optimizer", "normalization", "policy"),
    [
        ("adamw", "batch", "float32"),
        ("adamw", "sync_batch", "mixed_bfloat16"),
        ("adam", "group", "mixed_float16"),
        ("sgd", "batch", "float32"),
    ],
    indirect=["policy"],
)
def test_a_frozen_encoder_does_not_move_until_it_is_trained(
    optimizer: str, normalization: str, policy: str
) -> None:
    train = {"optimizer": optimizer, "weight_decay": 0.5, "freeze_encoder_epochs": 1}
    model = build_compiled_model(
        Config.model_validate(
            {"network": {**NETWORK, "normalization": normalization}, "train": train}
        )
    )
    encoder, others = split_values(model)
    fit(model, 0.0)
    frozen, trained = split_values(model)
    assert all(is_equal(encoder, frozen))
    assert not any(is_equal(others, trained))
    step = model.train_tf_function
    fit(model, 1.0)
    assert not any(is_equal(frozen, split_values(model)[0]))
    assert model.train_tf_function is step
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_factor_scales_the_updates_of_the_encoder_alone(optimizer: str) -> None:
    """Also those of Adam, whose updates do not depend on the size of the gradients."""
    plain = Config.model_validate(
        {"network": NETWORK, "train": {"optimizer": optimizer, "weight_decay": 0.5}}
    )
    slower = plain.with_values({"train.encoder_lr_factor": 0.25})
    expected, actual = build_compiled_model(plain), build_compiled_model(slower)
    start = split_values(expected)[0]
    for model, factor in ((expected, None), (actual, 1.0)):
        fit(model, factor)
    for a, b in zip(expected.get_weights(), actual.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    model = build_compiled_model(slower)
    fit(model, 0.25)
    moved = [np.abs(a - b).mean() for a, b in zip(split_values(model)[0], start, strict=True)]
    full = [np.abs(a - b).mean() for a, b in zip(split_values(actual)[0], start, strict=True)]
    assert np.sum(moved) == pytest.approx(0.25 * np.sum(full), rel=0.2)


def test_the_factor_is_a_function_of_the_progress() -> None:
    train = Train(freeze_encoder_epochs=1.5, encoder_lr_factor=0.1)
    factors = [encoder_lr_factor(progress, train) for progress in (0.0, 1.0, 1.49, 1.5, 7.0)]
    assert factors == [0.0, 0.0, 0.0, 0.1, 0.1]
