"""Layers and parts that the networks share: dropout, normalization, activation, output."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from contract.config.network.unet import Activation, Normalization

Layer = Callable[[tf.Tensor], tf.Tensor]

# Larger than the number of layers, so that no two workers share the random numbers of a layer.
_WORKER_STRIDE = 10_007
# Larger than the number of steps of a training, so that no two parts of a batch share them.
_PART_STRIDE = 2**40
# The logit of a foreground of 5 %.
_FOREGROUND_LOGIT = -3.0


class Dropout(keras.layers.Layer):
    """Dropout whose random numbers are functions of (seed, step, layer, worker) alone.

    The dropout of Keras draws from a stream: a run that resumes from a checkpoint, or trains in a
    network that an earlier training of the process built, would draw other numbers than an
    uninterrupted run. `bind_dropout` sets what the numbers depend on.
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, **kwargs: Any
    ) -> None:
        """rate: the fraction of features that is set to 0 in training.

        noise_shape: as in Keras, 1 for each axis along which all features are set to 0 together,
        and None for the others: (None, 1, 1, 1) is stochastic depth (Huang 2016,
        arXiv:1603.09382).
        """
        super().__init__(**kwargs)
        self.rate = rate
        self.noise_shape = noise_shape
        self.seed_function: Callable[[], tf.Tensor] | None = None
        """Returns two integers that determine the random numbers of this step."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Any shape [B, ..., C] to the same; the input itself outside of training."""
        if not training or not self.rate:
            return inputs
        assert self.seed_function, "bind_dropout() must be called before training"
        # Drawn in float32: in bfloat16 a rate of 0.05 would become 0.055. Multiplied, because
        # TensorFlow's layout optimizer skips a graph with a select, which tf.nn.dropout uses: on a
        # GPU the convolutions would run in the slower layout (docs/lab-notes.md).
        shape = tf.shape(inputs)
        if self.noise_shape:
            sizes = zip(self.noise_shape, tf.unstack(shape, len(self.noise_shape)), strict=True)
            shape = tf.stack([actual if size is None else size for size, actual in sizes])
        kept = tf.random.stateless_uniform(shape, self.seed_function()) >= self.rate
        return inputs * (tf.cast(kept, inputs.dtype) / (1.0 - self.rate))


def bind_dropout(model: keras.Model, seed: int, part: Callable[[], int] = lambda: 0) -> None:
    """Bind every Dropout layer of a compiled model, nested models included, to seed and step.

    The step is the iteration count of the model's optimizer, which a checkpoint contains.

    part: Which part of a batch is traced, of a step that computes it in several.
    """
    for index, layer in enumerate(find_dropout_layers(model)):
        layer.seed_function = _create_seed_function(seed, index, model.optimizer, part)


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
    seed: int, index: int, optimizer: keras.optimizers.Optimizer, part: Callable[[], int]
) -> Callable[[], tf.Tensor]:
    def seed_function() -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        offset = index + _WORKER_STRIDE * tf.cast(replica, tf.int64)
        step = tf.cast(optimizer.iterations, tf.int64) + part() * _PART_STRIDE
        return tf.stack([seed * 65_537 + offset, step])

    return seed_function


def probability_output(
    x: tf.Tensor, num_classes: int, kernel_size: int = 1, name: str = "probability", scale: int = 1
) -> tf.Tensor:
    """The probability of each class in each pixel, in float32 whatever the network's precision.

    scale: by how much the output is larger than x, by bilinear interpolation of the logits.
    """
    logits = logit_output(x, num_classes, kernel_size, name)
    logits = upsample_bilinear(logits, scale, f"{name}_upsample", "float32")
    return ClassProbabilities(dtype="float32", name=f"{name}_classes")(logits)


def logit_output(x: tf.Tensor, num_classes: int, kernel_size: int, name: str) -> tf.Tensor:
    """The logits of ClassProbabilities, float32 [B, H, W, count_logits(num_classes)].

    The bias starts at a foreground of 5 %: starting at one half, the first epochs only learn that
    most of a slice is background (Lin 2017, arXiv:1708.02002, section 4.1).
    """
    channels = count_logits(num_classes)
    bias = [_FOREGROUND_LOGIT]
    if num_classes > 1:
        bias = [math.log(num_classes) - _FOREGROUND_LOGIT] + [0.0] * num_classes
    return keras.layers.Conv2D(
        channels,
        kernel_size,
        padding="same",
        bias_initializer=keras.initializers.Constant(bias),
        dtype="float32",
        name=name,
    )(x)


def count_logits(num_classes: int) -> int:
    """The channels of logit_output: one for one class, otherwise one more than classes."""
    return 1 if num_classes == 1 else num_classes + 1


class ClassProbabilities(keras.layers.Layer):
    """The probability of each class [B, H, W, K] from the logits of logit_output.

    One class has a sigmoid; several have a softmax over the background and the classes, of which
    the background is dropped.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """inputs: logits."""
        if inputs.shape[-1] == 1:
            return tf.sigmoid(inputs)
        return tf.nn.softmax(inputs)[:, :, :, 1:]


def upsample_bilinear(x: tf.Tensor, factor: int, name: str, dtype: str | None = None) -> tf.Tensor:
    """[B, H, W, C] to [B, factor H, factor W, C]; the input itself if the factor is 1."""
    if factor == 1:
        return x
    return keras.layers.UpSampling2D(factor, interpolation="bilinear", dtype=dtype, name=name)(x)


def conv_norm(
    x: tf.Tensor,
    filters: int,
    normalization: Normalization,
    stage: str,
    kernel_size: int = 3,
    dilation: int = 1,
) -> tf.Tensor:
    """A convolution and its normalization, [B, H, W, C] to [B, H, W, filters].

    stage: the beginning of the names of its layers, such as "encoder_0".
    """
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        dilation_rate=dilation,
        padding="same",
        use_bias=normalization == "none",
        kernel_initializer="he_normal",
        name=f"{stage}_conv",
    )(x)
    return create_normalization(normalization, filters, f"{stage}_norm")(x)


def conv_norm_activation(
    x: tf.Tensor,
    filters: int,
    normalization: Normalization,
    activation: Activation,
    stage: str,
    kernel_size: int = 3,
    dilation: int = 1,
) -> tf.Tensor:
    """conv_norm and an activation."""
    x = conv_norm(x, filters, normalization, stage, kernel_size, dilation)
    return create_activation(activation, f"{stage}_activation")(x)


def level_dropout(dropout_rate: float, level: int) -> float:
    """Dropout rate of a level: proportional to the level, at most 0.5."""
    return min(dropout_rate * level, 0.5)


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
            return lambda x: x


def count_groups(filters: int, limit: int = 8) -> int:
    """Groups of a group normalization: the largest divisor of the filters up to a limit."""
    return next(number for number in range(limit, 0, -1) if filters % number == 0)


def create_activation(activation: Activation, name: str | None = None) -> Layer:
    """The activation after a convolution; mish is Misra 2019, arXiv:1908.08681."""
    if activation == "leaky_relu":
        return keras.layers.LeakyReLU(0.01, name=name)
    return keras.layers.Activation(mish if activation == "mish" else activation, name=name)


def mish(x: tf.Tensor) -> tf.Tensor:
    """x tanh(softplus(x)).

    With tanh(y) written as (1 - z) / (1 + z), z = exp(-2y): TensorFlow's optimizer fuses the usual
    form with the batch normalization before it, and then has no kernel for it on CPUs.
    """
    exponent = -2.0 * tf.math.softplus(x)
    return -x * tf.math.expm1(exponent) / (1.0 + tf.exp(exponent))
