"""The contract of every network: its shapes, gradients and size.

What it learns and serves is in tests/end_to_end/test_networks.py.
"""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from contract.config import NETWORKS, Network, network_name
from tests.trainer.networks.cases import CASES
from trainer.components.network_summary import count_parameters, draw_network, layer_table
from trainer.networks.layers import find_dropout_layers
from trainer.networks.registry import BUILDERS, BuiltNetwork, build_network, encoder_layers

SECTIONS = {network_name(section): section for section in NETWORKS}


@pytest.fixture(autouse=True)
def free_memory() -> Iterator[None]:
    """Delete a test's networks after it: together they take gigabytes."""
    yield
    keras.backend.clear_session()
    gc.collect()


def section(name: str, **settings: Any) -> Network:
    """The settings of a network's small variant."""
    return SECTIONS[name].model_validate(
        {"name": name, "image_size": 32, **CASES[name].small, **settings}
    )


def test_every_network_is_in_the_tables() -> None:
    assert set(CASES) == set(BUILDERS) == set(SECTIONS)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_the_gradient_reaches_every_weight_at_any_size(name: str) -> None:
    """Three classes, five channels, and sides that the levels of no network divide."""
    built = build_network(section(name, image_size=[33, 42]), 3, 5)
    for layer in find_dropout_layers(built.training_model):
        layer.seed_function = lambda: tf.constant([1, 2], tf.int64)
    slices = np.random.default_rng(0).random((2, 33, 42, 5), np.float32)
    with tf.GradientTape() as tape:
        maps = built.training_model(slices, training=True)
        loss = tf.reduce_mean(maps * tf.random.stateless_uniform(tf.shape(maps), (1, 2)))
    assert maps.shape[:3] == (2, 33, 42)
    variables = built.training_model.trainable_variables
    gradients = tape.gradient(loss, variables)
    missing = [
        variable.name
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is None or not np.isfinite(tf.convert_to_tensor(gradient).numpy()).all()
    ]
    assert not missing
    # The encoder is a part of it that can be frozen.
    encoder = [each for layer in encoder_layers(built.training_model) for each in layer.weights]
    assert 0 < len(encoder) < len(built.training_model.weights)
    # Every run writes both.
    assert draw_network(built.training_model).startswith("<svg")
    assert built.training_model.layers[-1].name in layer_table(built.training_model)
    probability = built.inference_model(slices, training=False).numpy()
    assert probability.shape == (2, 33, 42, 3)
    assert probability.dtype == np.float32
    assert probability.min() >= 0
    assert probability.sum(axis=-1).max() <= 1 + 1e-5


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_network_has_the_documented_number_of_parameters(name: str) -> None:
    case = CASES[name]
    settings = {"name": name, "image_size": 256, **case.reference}
    model = build_network(SECTIONS[name].model_validate(settings), 1, 1).inference_model
    assert count_parameters(model.trainable_variables) == case.parameters


def test_the_documented_numbers_are_those_of_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "networks.md").read_text(encoding="utf-8")
    table = page.partition("<!-- networks -->")[0]
    rows = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    assert set(rows) == set(CASES)
    counts = {name: case.parameters for name, case in CASES.items()}
    # Its case has one of the twelve layers of the transformer, because building it takes seconds.
    counts["trans_unet"] += 11 * 7_087_872
    assert [name for name, count in counts.items() if f"{count:,}" not in rows[name]] == []


def test_a_network_without_further_outputs_is_one_model() -> None:
    built: BuiltNetwork = build_network(section("unet"), 1, 1)
    assert built.training_model is built.inference_model
    deep = build_network(section("unet", deep_supervision=True), 2, 1)
    assert deep.training_model.output_shape == (None, 32, 32, 4)
    assert deep.inference_model.output_shape == (None, 32, 32, 2)
    assert deep.layout.weights == (2 / 3, 1 / 3)
    assert len(deep.training_model.weights) == len(deep.inference_model.weights)
