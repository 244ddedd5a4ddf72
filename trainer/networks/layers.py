"""Dropout whose draws are functions of (seed, step, layer, worker) and of nothing that ran before.

Keras's own draws from a stream: a run that goes on from a checkpoint, or in a network that an
earlier training of the process built, would see other draws than an uninterrupted one.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

# Apart by more than there are layers, so that no two workers share a layer's draws.
_WORKERS_APART = 10_007


class Dropout(keras.layers.Layer):
    """Sets a share of the features to 0 in training, and scales up the others; see `bind`."""

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.key: Callable[[], tf.Tensor] | None = None
        """Two integers that decide the draws of this step; set by `bind`."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[B, H, W, C] to the same; the input itself where nothing is trained."""
        if not training or not self.rate:
            return inputs
        assert self.key, "bind() comes before training"
        # Drawn in float32: in bfloat16 a rate of 0.05 would be one of 0.055. Multiplied, as
        # TensorFlow's layout optimiser leaves a graph alone that selects, which tf.nn's dropout
        # does: on a GPU the convolutions would run in the slower order (docs/lab-notes.md).
        kept = tf.random.stateless_uniform(tf.shape(inputs), self.key()) >= self.rate
        return inputs * (tf.cast(kept, inputs.dtype) / (1.0 - self.rate))


def bind_dropout(model: keras.Model, seed: int) -> None:
    """Key the draws of a compiled network by the seed and its optimiser's count of steps."""
    layers = [layer for layer in model.layers if isinstance(layer, Dropout)]
    for number, layer in enumerate(layers):
        layer.key = _key(seed, number, model.optimizer)


def _key(seed: int, number: int, optimizer: keras.optimizers.Optimizer) -> Callable[[], tf.Tensor]:
    def key() -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        place = number + _WORKERS_APART * tf.cast(replica, tf.int64)
        return tf.stack([seed * 65_537 + place, tf.cast(optimizer.iterations, tf.int64)])

    return key
