"""Weights by the names of the layers, and which layers of one network fit another."""

import numpy as np
import tf_keras as keras

from contract.config import Config
from tests.small import NETWORK
from trainer.networks.layer_weights import load_fitting_weights, name_weights, weighted_layers
from trainer.networks.registry import build_network


def network(num_classes: int = 1, **settings: object) -> keras.Model:
    section = Config.model_validate({"network": {**NETWORK, **settings}}).network
    return build_network(section, num_classes, 1).inference_model


def shifted(model: keras.Model) -> list[np.ndarray]:
    """Values for the weights of a model that no initializer draws."""
    return [value + 7.0 for value in model.get_weights()]


def test_all_layers_of_the_same_network_fit() -> None:
    source, target = network(normalization="batch"), network(normalization="batch")
    values = shifted(source)
    loaded, others = load_fitting_weights(target, name_weights(source, values))
    assert others == []
    assert loaded == list(weighted_layers(target))
    # The statistics of the normalization too.
    assert any("moving_variance" in variable.name for variable in target.weights)
    for value, expected in zip(target.get_weights(), values, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_layers_with_another_name_or_shape_keep_their_weights() -> None:
    source, target = network(), network(num_classes=2, num_layers=3)
    stored = name_weights(source, shifted(source))
    before = target.get_layer("probability").get_weights()
    loaded, others = load_fitting_weights(target, stored)
    for value, unchanged in zip(target.get_layer("probability").get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, unchanged)
    kernel = target.get_layer("encoder_0_1_conv").get_weights()[0]
    np.testing.assert_array_equal(kernel, stored["encoder_0_1_conv"][0])
    assert "encoder_2_1_conv" in others
    assert set(loaded) == set(stored) - {"probability"}
    assert load_fitting_weights(network(base_filters=6), stored)[0] == []


def test_a_model_inside_a_network_has_its_name_in_front() -> None:
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, keras.layers.Dense(2, name="stem")(inputs), name="encoder")
    outer_inputs = keras.Input((4,))
    outer = keras.Model(outer_inputs, keras.layers.Dense(1, name="last")(inner(outer_inputs)))
    assert list(weighted_layers(outer)) == ["encoder/stem", "last"]
    named = name_weights(outer, outer.get_weights())
    assert [value.shape for value in named["encoder/stem"]] == [(4, 2), (2,)]
