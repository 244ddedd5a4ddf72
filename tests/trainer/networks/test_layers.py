"""Dropout draws the same numbers again; the other layers that the networks share."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from contract.config.network.unet import Normalization
from trainer.networks.layers import (
    Dropout,
    bind_dropout,
    conv_norm_activation,
    count_groups,
    find_dropout_layers,
    probability_output,
    upsample_bilinear,
)

# Not TensorFlow's: it would begin to work when the tests are collected, and could then no longer be
# given its threads.
ONES = np.ones([2, 8, 8, 16], np.float32)


def network(rate: float = 0.25) -> keras.Model:
    # An earlier training of this process may have left another one.
    keras.mixed_precision.set_global_policy("float32")
    inputs = keras.Input((8, 8, 16))
    model = keras.Model(inputs, Dropout(rate)(Dropout(rate)(inputs)))
    model.compile(keras.optimizers.Adam(), "mse")
    model.optimizer.build([])
    return model


def drawn(model: keras.Model, step: int) -> np.ndarray:
    model.optimizer.iterations.assign(step)
    return model(ONES, training=True).numpy()


def test_draws_depend_on_seed_step_and_layer_alone() -> None:
    model, other = network(), network()
    bind_dropout(model, 7)
    bind_dropout(other, 7)
    first = drawn(model, 3)
    assert not np.array_equal(drawn(model, 4), first)
    assert np.array_equal(drawn(other, 3), first)
    bind_dropout(other, 8)
    assert not np.array_equal(drawn(other, 3), first)
    bind_dropout(other, 7, lambda: 1)
    assert not np.array_equal(drawn(other, 3), first)
    # Had both layers the same draws, what one leaves the other would.
    kept = (first > 0).mean()
    assert kept == pytest.approx(0.75**2, abs=0.05)
    assert first.mean() == pytest.approx(1.0, abs=0.1)


def test_the_rate_holds_in_few_digits() -> None:
    """bfloat16 has 128 numbers where TensorFlow would draw from 0 to 1."""
    layer = Dropout(0.05, dtype="mixed_bfloat16")
    layer.seed_function = lambda: tf.constant([1, 2])
    kept = layer(np.ones([1, 1000, 1000, 1], np.float32), training=True).numpy() > 0
    assert kept.mean() == pytest.approx(0.95, abs=0.001)


def test_a_noise_shape_drops_whole_samples() -> None:
    layer = Dropout(0.25, noise_shape=(None, 1, 1, 1))
    layer.seed_function = lambda: tf.constant([1, 2])
    means = layer(np.ones([400, 2, 2, 3], np.float32), training=True).numpy().mean(axis=(1, 2, 3))
    assert np.unique(means) == pytest.approx([0, 1 / 0.75])
    assert (means > 0).mean() == pytest.approx(0.75, abs=0.06)


def test_nothing_is_dropped_where_nothing_is_trained() -> None:
    assert np.array_equal(network()(ONES, training=False), ONES)
    never = network(rate=0.0)
    assert np.array_equal(never(ONES, training=True), ONES)


def test_a_network_that_was_not_bound_does_not_train_with_draws_of_chance() -> None:
    with pytest.raises(AssertionError, match="bind"):
        network()(ONES, training=True)


def test_dropout_in_nested_models_is_bound() -> None:
    inner = keras.Sequential([keras.Input((4, 4, 1)), Dropout(0.5)])
    model = keras.Sequential([keras.Input((4, 4, 1)), Dropout(0.5), inner])
    model.compile("sgd", "mse")
    bind_dropout(model, 3)
    first, second = find_dropout_layers(model)
    assert second is inner.layers[0]
    assert first.seed_function
    assert second.seed_function
    assert not np.array_equal(first.seed_function(), second.seed_function())


def test_groups_divide_the_filters() -> None:
    assert [count_groups(filters) for filters in (1, 4, 6, 12, 16, 7)] == [1, 4, 6, 6, 8, 7]
    assert [count_groups(filters, 32) for filters in (8, 48, 64)] == [8, 24, 32]


@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_network_starts_at_a_foreground_of_five_percent(num_classes: int) -> None:
    keras.mixed_precision.set_global_policy("float32")
    inputs = keras.Input((4, 4, 2))
    outputs = probability_output(inputs, num_classes)
    probability = keras.Model(inputs, outputs)(np.zeros([1, 4, 4, 2], np.float32)).numpy()
    assert probability.shape == (1, 4, 4, num_classes)
    assert probability.sum(axis=-1) == pytest.approx(0.05, abs=0.003)


def test_upsampling_interpolates_between_the_centers_of_pixels() -> None:
    inputs = keras.Input((2, 1, 1))
    model = keras.Model(inputs, upsample_bilinear(inputs, 2, "upsample"))
    values = np.array([0.0, 4.0], np.float32).reshape(1, 2, 1, 1)
    assert model(values).numpy()[0, :, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]
    assert upsample_bilinear(inputs, 1, "upsample") is inputs


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_a_convolution_has_a_bias_unless_normalization_follows(
    normalization: Normalization,
) -> None:
    inputs = keras.Input((8, 8, 2))
    outputs = conv_norm_activation(inputs, 4, normalization, "relu", "stage", 5, 2)
    model = keras.Model(inputs, outputs)
    conv = model.get_layer("stage_conv")
    assert conv.use_bias == (normalization == "none")
    assert (conv.kernel_size, conv.dilation_rate) == ((5, 5), (2, 2))
    assert model.output_shape == (None, 8, 8, 4)
    assert (model(np.random.default_rng(0).normal(size=(1, 8, 8, 2))).numpy() >= 0).all()
