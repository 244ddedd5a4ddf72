"""What a training worker sees: fixed-size samples in an order keyed by (seed, epoch).

The order of samples and every draw of augmentation are functions of (seed, epoch, turn) alone,
where a turn is a sample and how often it has come in the epoch. So a resumed run sees what an
uninterrupted one would, and the samples of a step are the same however many workers share them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.config import Config
from trainer.data.augmentation import augment
from trainer.data.cache import CachedSplit

Sample = tuple[NDArray[np.float32], NDArray[np.float32]]
Number = TypeVar("Number", np.int64, np.float32)

# Different draws of one (seed, epoch) must not share a stream.
_ORDER, _AUGMENT = 0, 1


@dataclass(frozen=True)
class WorkerRank:
    """Which worker this is: rank from 0 to workers-1."""

    rank: int = 0
    world_size: int = 1


def steps_per_epoch(config: Config, samples: int) -> int:
    """Training steps of an epoch: as set, else the whole batches the split fills (at least 1)."""
    return config.train.steps_per_epoch or max(1, samples // config.train.batch_size)


def validation_steps(config: Config, samples: int) -> int:
    """Steps that show every validation sample once."""
    return math.ceil(samples / config.train.batch_size)


def epoch_order(seed: int, epoch: int, samples: int, needed: int) -> NDArray[np.int64]:
    """[needed] turns of an epoch: every sample once before any comes again.

    A turn is a sample's number, plus `samples` for each time it has come before.
    """
    rounds = math.ceil(needed / samples)
    orders = [
        np.random.default_rng((seed, epoch, _ORDER, part)).permutation(samples) + part * samples
        for part in range(rounds)
    ]
    return np.concatenate(orders)[:needed]


def shard(order: NDArray[Number], batch: int, place: WorkerRank) -> NDArray[Number]:
    """One worker's part of an order: its slice of every whole batch."""
    batches = order.reshape(-1, place.world_size, batch // place.world_size)
    return batches[:, place.rank].reshape(-1)


def training_dataset(
    config: Config, arrays: CachedSplit, place: WorkerRank, first_epoch: int
) -> tf.data.Dataset:
    """This worker's batches from the start of first_epoch to the end of the last epoch.

    Elements: float32 images [b, S, S, C] in 0..1 and truth [b, S, S, 1], with b this worker's
    share of train.batch_size.
    """
    batch = config.train.batch_size
    needed = steps_per_epoch(config, len(arrays.images)) * batch

    def numbers() -> Iterator[tuple[int, int]]:
        for epoch in range(first_epoch, config.train.epochs):
            order = epoch_order(config.run.seed, epoch, len(arrays.images), needed)
            for turn in shard(order, batch, place):
                yield epoch, int(turn)

    def draw(epoch: np.int64, turn: np.int64) -> Sample:
        return load_augmented(config, arrays, int(epoch), int(turn))

    number = tf.TensorSpec((), tf.int64)
    return (
        tf.data.Dataset.from_generator(numbers, output_signature=(number, number))
        .map(_map_numpy(draw, arrays), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch // place.world_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def validation_dataset(config: Config, arrays: CachedSplit, place: WorkerRank) -> tf.data.Dataset:
    """This worker's validation batches, over and over: images, truth and weights [b].

    Batches are filled with samples of weight 0, so that every worker has as many. Each is given
    its share of them: Keras takes the mean of the batches' losses for val_loss, and a last batch
    of one sample would count as much as a full one.
    """
    batch, samples = config.train.batch_size, len(arrays.images)
    steps = validation_steps(config, samples)
    filled, weights = np.zeros((steps, batch), np.int64), np.zeros((steps, batch), np.float32)
    for step, part in enumerate(np.array_split(np.arange(samples), steps)):
        filled[step, : len(part)], weights[step, : len(part)] = part, 1.0

    def read(sample: np.int64) -> Sample:
        return load_sample(config, arrays, int(sample))

    numbers = tf.data.Dataset.from_tensor_slices(shard(filled, batch, place))
    slices = numbers.map(_map_numpy(read, arrays), num_parallel_calls=tf.data.AUTOTUNE)
    weight = tf.data.Dataset.from_tensor_slices(shard(weights, batch, place))
    return (
        tf.data.Dataset.zip((slices, weight))
        .map(lambda pair, weight: (*pair, weight))
        .batch(batch // place.world_size, drop_remainder=True)
        .repeat()
        .prefetch(tf.data.AUTOTUNE)
    )


def load_sample(config: Config, arrays: CachedSplit, sample: int) -> Sample:
    """A sample as it is: image float32 [S, S, C] in 0..1, truth float32 [S, S, 1]."""
    low, high = config.data.intensity_low, config.data.intensity_high
    image = (np.clip(arrays.images[sample].astype(np.float32), low, high) - low) / (high - low)
    return image.astype(np.float32), arrays.masks[sample][..., None].astype(np.float32)


def load_augmented(config: Config, arrays: CachedSplit, epoch: int, turn: int) -> Sample:
    """A sample as epoch `epoch` of the run shows it at one of its turns."""
    image, truth = load_sample(config, arrays, turn % len(arrays.images))
    draw = np.random.default_rng((config.run.seed, epoch, _AUGMENT, turn))
    image, mask = augment(image, truth[..., 0].astype(np.uint8), draw, config.data.augment)
    return image, mask[..., None].astype(np.float32)


def _map_numpy(function, arrays: CachedSplit):
    """A tf.data mapping that calls a numpy function and tells TensorFlow the shapes again."""
    side, channels = arrays.images.shape[1], arrays.images.shape[3]

    def call(*numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, truth = tf.numpy_function(function, numbers, (tf.float32, tf.float32))
        return (
            tf.ensure_shape(image, (side, side, channels)),
            tf.ensure_shape(truth, (side, side, 1)),
        )

    return call
