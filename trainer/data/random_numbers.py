"""The random numbers of samples: seeds from (run, epoch, sample index), and draws by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

_LANES = 16

# Random numbers for different purposes must not share a stream.
ORDER, AUGMENT, FOREGROUND_ORDER = 0, 1, 2

NAMES = (
    "flip_horizontal",
    "flip_vertical",
    "right_angles",
    "right_angles.turns",
    "rotation",
    "rotation.angle",
    "scale",
    "scale.factor",
    "shear",
    "shear.y",
    "shear.x",
    "shift",
    "shift.y",
    "shift.x",
    "elastic",
    "grid_distortion",
    "barrel",
    "barrel.amount",
    "pincushion",
    "pincushion.amount",
    "gamma",
    "gamma.exponent",
    "brightness",
    "brightness.factor",
    "contrast",
    "contrast.factor",
    "noise",
    "blur",
    "blur.sigma",
    "low_resolution",
    "low_resolution.factor",
    "sharpen",
    "sharpen.amount",
    "cutout",
    "cutout.height",
    "cutout.width",
    "cutout.y",
    "cutout.x",
)
"""One uniform random number of each sample for each name."""


def fold_in(seed: Any, *values: Any) -> tf.Tensor:
    """A seed, int32 [2], that depends on another seed and on each of the values, below 2^31."""
    for value in values:
        seed = tf.random.fold_in(seed, tf.cast(value, tf.int32))
    return seed


def create_seed(seed: int) -> tf.Tensor:
    """The seed of a run, int32 [2], from run.seed."""
    return tf.constant([seed & 0x7FFFFFFF, seed >> 31 & 0x7FFFFFFF], tf.int32)


def uniform(seed: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """float32 uniform in [0, 1); the same on every device."""
    return tf.random.stateless_uniform(shape, seed, alg="philox")


def normal(seed: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """float32 with a standard normal distribution."""
    return tf.random.stateless_normal(shape, seed, alg="philox")


def elementwise(
    function: Callable[[tf.Tensor], tf.Tensor], values: tf.Tensor, item_size: int = 1
) -> tf.Tensor:
    """A function such as tf.exp of every value, rounded alike whatever else is in the batch.

    On a CPU, TensorFlow computes 4 to 16 values at a time, and the last ones of a tensor one by one
    by another algorithm: exp(x) alone and exp(x) in a batch may differ in the last bit. The values
    are therefore padded to a multiple of 16.

    Args:
        function: From a tensor to one of the same shape.
        values: float32 [B, ...].
        item_size: The number of values of each item of the batch, where it is known.
    """
    if item_size % _LANES == 0:
        return function(values)
    flat = tf.reshape(values, [-1])
    count = tf.size(flat)
    padded = tf.pad(flat, [[0, -count % _LANES]], constant_values=1.0)
    return tf.reshape(function(padded)[:count], tf.shape(values))


@dataclass(frozen=True)
class RandomNumbers:
    """Uniform random numbers of a batch by name: values [B, len(NAMES)]."""

    values: tf.Tensor

    @staticmethod
    def draw(seed: tf.Tensor) -> tf.Tensor:
        """The random numbers of one sample, [len(NAMES)]."""
        return uniform(seed, (len(NAMES),))

    def fraction(self, name: str) -> tf.Tensor:
        """[B] in [0, 1)."""
        return self.values[:, NAMES.index(name)]

    def signed(self, name: str) -> tf.Tensor:
        """[B] in [-1, 1)."""
        return 2.0 * self.fraction(name) - 1.0

    def applied(self, name: str, probability: float) -> tf.Tensor:
        """[B] 1.0 for the samples to which an augmentation applies, else 0.0."""
        return tf.cast(self.fraction(name) < probability, tf.float32)
