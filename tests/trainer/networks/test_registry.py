"""The contract of every network: its shapes, and a gradient for every weight."""

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Network
from trainer.networks.registry import BUILDERS, build_network

SMALL = {"unet": {"image_size": 32, "num_layers": 3, "base_filters": 4, "dropout_rate": 0.0}}


def test_every_network_is_in_the_table() -> None:
    assert set(SMALL) == set(BUILDERS)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_the_gradient_reaches_every_weight(name: str) -> None:
    model = build_network(Network.model_validate({"name": name, **SMALL[name]}), 1, 1)
    slices = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    with tf.GradientTape() as tape:
        probabilities = model(slices, training=True)
        loss = tf.reduce_mean(probabilities**2)
    assert probabilities.shape == (2, 32, 32, 1)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
