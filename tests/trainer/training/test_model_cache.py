"""Networks are used again where their graphs are the same, and begin as new ones do."""

import numpy as np
import pytest
import tf_keras as keras

from contract.config import Config
from tests.small import NETWORK
from trainer.training.model_cache import CompiledModel, ModelCache
from trainer.training.model_state import state_variables
from trainer.training.train_loop import build_compiled_model

CONFIG = Config.model_validate({"network": NETWORK, "train": {"num_workers": 1}})


def values(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in state_variables(model)]


def taken(cache: ModelCache, config: Config) -> CompiledModel:
    return cache.acquire(config, "float32", build_compiled_model)


def trained(compiled: CompiledModel) -> CompiledModel:
    side, _ = CONFIG.network.image_shape
    images = np.random.default_rng(0).random((2, side, side, 1), np.float32)
    compiled.model.fit(images, np.round(images), sample_weight=np.ones(2), verbose=0)
    return compiled


def test_a_network_that_is_used_again_starts_as_a_new_one() -> None:
    cache = ModelCache()
    first = trained(taken(cache, CONFIG))
    assert any(
        not np.array_equal(now, before)
        for now, before in zip(values(first.model), first.initial_values, strict=True)
    )
    cache.release(first)
    again = taken(cache, CONFIG.with_values({"train.learning_rate": 0.5, "train.epochs": 3}))
    assert again.model is first.model
    new = taken(ModelCache(), CONFIG)
    for used, fresh in zip(values(again.model), values(new.model), strict=True):
        np.testing.assert_array_equal(used, fresh)
    # It is taken: no one else is given it.
    assert taken(cache, CONFIG).model is not first.model


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network.base_kernels", 5),
        ("data.neighbours", 1),
        ("network.dropout_rate", 0.2),
        ("train.loss", "dice_loss"),
        ("train.optimizer", "sgd"),
        ("train.weight_decay", 0.5),
        ("train.clip_norm", 1.0),
        ("train.batch_size", 2),
        ("train.label_smoothing", 0.1),
        ("train.accumulate", 2),
        ("train.ema_decay", 0.9),
        ("train.freeze_encoder_epochs", 1.0),
        ("run.seed", 9),
    ],
)
def test_what_changes_the_graph_or_its_first_weights_is_built_again(
    name: str, value: object
) -> None:
    cache = ModelCache()
    first = taken(cache, CONFIG)
    cache.release(first)
    assert taken(cache, CONFIG.with_values({name: value})).model is not first.model


def test_factors_of_the_encoder_share_a_network() -> None:
    cache = ModelCache()
    first = taken(cache, CONFIG.with_values({"train.encoder_lr_factor": 0.1}))
    cache.release(first)
    other = {"train.encoder_lr_factor": 0.2, "train.freeze_encoder_epochs": 1.0}
    assert taken(cache, CONFIG.with_values(other)).model is first.model


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_network_trains_in_every_number_format(policy: str) -> None:
    """With dropout and Adam's one operation, of which neither is Keras's own."""
    keras.mixed_precision.set_global_policy(policy)
    try:
        config = CONFIG.with_values({"network.dropout_rate": 0.2})
        cache = ModelCache()
        compiled = trained(cache.acquire(config, policy, build_compiled_model))
        assert np.isfinite(np.concatenate([v.ravel() for v in values(compiled.model)])).all()
        cache.release(compiled)
        # The scale of float16's losses could not be set back.
        again = cache.acquire(config, policy, build_compiled_model).model is compiled.model
        assert again == (policy != "mixed_float16")
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_the_oldest_make_room() -> None:
    cache = ModelCache()
    configs = [CONFIG.with_values({"run.seed": seed}) for seed in range(9)]
    compiled = [taken(cache, config) for config in configs]
    for one in compiled:
        cache.release(one)
    assert taken(cache, configs[1]).model is compiled[1].model
    assert taken(cache, configs[0]).model is not compiled[0].model
