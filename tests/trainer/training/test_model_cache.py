"""Networks are used again where their graphs are the same, and begin as new ones do."""

import numpy as np
import pytest
import tf_keras as keras

from contract.config import Config
from tests.small import NETWORK
from trainer.training.model_cache import CompiledModel, ModelCache, state_variables
from trainer.training.train_loop import build_compiled_model

CONFIG = Config.model_validate({"network": NETWORK, "train": {"num_workers": 1}})


def values(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in state_variables(model)]


def taken(shelf: ModelCache, config: Config) -> CompiledModel:
    return shelf.acquire(config, "float32", build_compiled_model)


def trained(built: CompiledModel) -> CompiledModel:
    side = CONFIG.network.image_size
    images = np.random.default_rng(0).random((2, side, side, 1), np.float32)
    built.model.fit(images, np.round(images), sample_weight=np.ones(2), verbose=0)
    return built


def test_a_network_that_is_used_again_starts_as_a_new_one() -> None:
    shelf = ModelCache()
    first = trained(taken(shelf, CONFIG))
    assert any(
        not np.array_equal(now, before)
        for now, before in zip(values(first.model), first.initial_values, strict=True)
    )
    shelf.release(first)
    again = taken(shelf, CONFIG.with_values({"train.learning_rate": 0.5, "train.epochs": 3}))
    assert again.model is first.model
    new = taken(ModelCache(), CONFIG)
    for used, fresh in zip(values(again.model), values(new.model), strict=True):
        np.testing.assert_array_equal(used, fresh)
    # It is taken: no one else is given it.
    assert taken(shelf, CONFIG).model is not first.model


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network.base_kernels", 5),
        ("network.dropout_rate", 0.2),
        ("train.loss", "dice_loss"),
        ("train.optimizer", "sgd"),
        ("train.weight_decay", 0.5),
        ("train.clip_norm", 1.0),
        ("train.batch_size", 2),
        ("run.seed", 9),
    ],
)
def test_what_changes_the_graph_or_its_first_weights_is_built_again(
    name: str, value: object
) -> None:
    shelf = ModelCache()
    first = taken(shelf, CONFIG)
    shelf.release(first)
    assert taken(shelf, CONFIG.with_values({name: value})).model is not first.model


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_network_trains_in_every_number_format(policy: str) -> None:
    """With dropout and Adam's one operation, of which neither is Keras's own."""
    keras.mixed_precision.set_global_policy(policy)
    try:
        config = CONFIG.with_values({"network.dropout_rate": 0.2})
        shelf = ModelCache()
        built = trained(shelf.acquire(config, policy, build_compiled_model))
        assert np.isfinite(np.concatenate([v.ravel() for v in values(built.model)])).all()
        shelf.release(built)
        # The scale of float16's losses could not be set back.
        again = shelf.acquire(config, policy, build_compiled_model).model is built.model
        assert again == (policy != "mixed_float16")
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_the_oldest_make_room() -> None:
    shelf = ModelCache()
    configs = [CONFIG.with_values({"run.seed": seed}) for seed in range(9)]
    built = [taken(shelf, config) for config in configs]
    for one in built:
        shelf.release(one)
    assert taken(shelf, configs[1]).model is built[1].model
    assert taken(shelf, configs[0]).model is not built[0].model
