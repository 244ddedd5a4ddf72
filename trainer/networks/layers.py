"""Layers and parts that the networks share: dropout, normalization, activation, output."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from contract.config.network.unet import Activation, Normalization

Layer = Callable[[tf.Tensor], tf.Tensor]

# Larger than the number of layers, so that no two workers share the random numbers of a layer.
_WORKER_STRIDE = 10_007
# The logit of a foreground of 5 %.
_FOREGROUND_LOGIT = -3.0


class Dropout(keras.layers.Layer):
    """Dropout whose random numbers are functions of (seed, step, layer, worker) alone.

    The dropout of Keras draws from a stream: a run that resumes from a checkpoint, or trains in a
    network that an earlier training of the process built, would draw other numbers than an
    uninterrupted run. `bind_dropout` sets what the numbers depend on.
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        """rate: the fraction of features that is set to 0 in training."""
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_function: Callable[[], tf.Tensor] | None = None
        """Returns two integers that determine the random numbers of this step."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[B, H, W, C] to the same shape; the input itself outside of training."""
        if not training or not self.rate:
            return inputs
        assert self.seed_function, "bind_dropout() must be called before training"
        # Drawn in float32: in bfloat16 a rate of 0.05 would become 0.055. Multiplied, because
        # TensorFlow's layout optimizer skips a graph with a select, which tf.nn.dropout uses: on a
        # GPU the convolutions would run in the slower layout (docs/lab-notes.md).
        kept = tf.random.stateless_uniform(tf.shape(inputs), self.seed_function()) >= self.rate
        return inputs * (tf.cast(kept, inputs.dtype) / (1.0 - self.rate))


def bind_dropout(model: keras.Model, seed: int) -> None:
    """Bind every Dropout layer of a compiled model, nested models included, to seed and step.

    The step is the iteration count of the model's optimizer, which a checkpoint contains.
    """
    for index, layer in enumerate(find_dropout_layers(model)):
        layer.seed_function = _create_seed_function(seed, index, model.optimizer)


def find_dropout_layers(model: keras.Model) -> list[Dropout]:
    """The Dropout layers of a model and of the models inside it, in order."""
    layers: list[Dropout] = []
    for layer in model.layers:
        if isinstance(layer, Dropout):
            layers.append(layer)
        elif isinstance(layer, keras.Model):
            layers += find_dropout_layers(layer)
    return layers


def _create_seed_function(
    seed: int, index: int, optimizer: keras.optimizers.Optimizer
) -> Callable[[], tf.Tensor]:
    def seed_function() -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        offset = index + _WORKER_STRIDE * tf.cast(replica, tf.int64)
        return tf.stack([seed * 65_537 + offset, tf.cast(optimizer.iterations, tf.int64)])

    return seed_function


def probability_output(
    x: tf.Tensor, num_classes: int, kernel_size: int = 1, name: str = "probability", scale: int = 1
) -> tf.Tensor:
    """The probability of each class in each pixel, in float32 whatever the network's precision.

    scale: by how much the output is larger than x, by bilinear interpolation of the logits.

    One class has a sigmoid; several have a softmax over the background and the classes, of which
    the background is dropped. The bias starts at a foreground of 5 %: starting at one half, the
    first epochs only learn that most of a slice is background (Lin 2017, arXiv:1708.02002, section
    4.1).
    """
    if num_classes == 1:
        activation, bias = "sigmoid", [_FOREGROUND_LOGIT]
    else:
        activation, bias = "softmax", [math.log(num_classes) - _FOREGROUND_LOGIT]
        bias += [0.0] * num_classes
    maps = keras.layers.Conv2D(
        len(bias),
        kernel_size,
        padding="same",
        activation=activation if scale == 1 else None,
        bias_initializer=keras.initializers.Constant(bias),
        dtype="float32",
        name=name if scale == 1 else f"{name}_logits",
    )(x)
    if scale > 1:
        maps = keras.layers.UpSampling2D(
            scale, interpolation="bilinear", dtype="float32", name=f"{name}_upsample"
        )(maps)
        maps = keras.layers.Activation(activation, dtype="float32", name=name)(maps)
    if num_classes == 1:
        return maps
    drop_background = keras.layers.Lambda(
        lambda values: values[..., 1:], dtype="float32", name=f"{name}_classes"
    )
    return drop_background(maps)


def create_normalization(
    normalization: Normalization, filters: int, name: str | None = None
) -> Layer:
    """The normalization after a convolution with this many filters."""
    match normalization:
        case "batch":
            return keras.layers.BatchNormalization(momentum=0.9, name=name)
        case "sync_batch":
            return keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name=name)
        case "group":
            return keras.layers.GroupNormalization(count_groups(filters), name=name)
        case "none":
            return tf.identity


def count_groups(filters: int) -> int:
    """Groups of a group normalization: the largest number up to 8 that divides the filters."""
    return next(number for number in range(8, 0, -1) if filters % number == 0)


def create_activation(activation: Activation, name: str | None = None) -> Layer:
    """The activation after a convolution; mish is Misra 2019, arXiv:1908.08681."""
    if activation == "leaky_relu":
        return keras.layers.LeakyReLU(0.01, name=name)
    return keras.layers.Activation(activation, name=name)
