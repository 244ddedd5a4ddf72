"""The samples of a training worker: fixed-size slices in an order seeded by (seed, epoch).

The order of samples and the random numbers of augmentation are functions of (seed, epoch, sample
index) alone. A sample index is the number of a sample plus the number of samples for each time that
it has occurred in the epoch before. A resumed run therefore uses the samples that an uninterrupted
run would use, and the samples of a step do not depend on the number of workers.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.config import Data, Train
from trainer.data.augmentation import augment
from trainer.data.cache import CachedSplit
from trainer.data.preprocessing import normalize

Sample = tuple[NDArray[np.float32], NDArray[np.float32]]
Number = TypeVar("Number", np.int64, np.float32)

# The random numbers of one (seed, epoch) for different purposes must not share a stream.
_ORDER, _AUGMENT = 0, 1


@dataclass(frozen=True)
class WorkerRank:
    """Which worker this is: rank from 0 to world_size - 1."""

    rank: int = 0
    world_size: int = 1


def steps_per_epoch(train: Train, num_samples: int) -> int:
    """Training steps of an epoch: as set, else the complete batches of the split (at least 1)."""
    return train.steps_per_epoch or max(1, num_samples // train.batch_size)


def validation_steps(train: Train, num_samples: int) -> int:
    """Steps that use every validation sample once."""
    return math.ceil(num_samples / train.batch_size)


def epoch_order(seed: int, epoch: int, num_samples: int, length: int) -> NDArray[np.int64]:
    """The sample indices [length] of an epoch: every sample once before any occurs again."""
    rounds = math.ceil(length / num_samples)
    orders = [
        np.random.default_rng((seed, epoch, _ORDER, index)).permutation(num_samples)
        + index * num_samples
        for index in range(rounds)
    ]
    return np.concatenate(orders)[:length]


def shard(values: NDArray[Number], batch_size: int, rank: WorkerRank) -> NDArray[Number]:
    """The values of this worker: its part of each batch of a sequence of complete batches."""
    batches = values.reshape(-1, rank.world_size, batch_size // rank.world_size)
    return batches[:, rank.rank].reshape(-1)


def training_dataset(
    cached: CachedSplit, data: Data, train: Train, seed: int, rank: WorkerRank, first_epoch: int
) -> tf.data.Dataset:
    """This worker's training batches, from an epoch to the last: images and masks [b, S, S, C].

    b is train.batch_size divided by the number of workers.
    """
    length = steps_per_epoch(train, len(cached.images)) * train.batch_size

    def sample_indices() -> Iterator[tuple[int, int]]:
        for epoch in range(first_epoch, train.epochs):
            order = epoch_order(seed, epoch, len(cached.images), length)
            for sample_index in shard(order, train.batch_size, rank):
                yield epoch, int(sample_index)

    def load(epoch: np.int64, sample_index: np.int64) -> Sample:
        return load_augmented(cached, data, seed, int(epoch), int(sample_index))

    number = tf.TensorSpec((), tf.int64)
    return (
        tf.data.Dataset.from_generator(sample_indices, output_signature=(number, number))
        .map(_map_numpy(load, cached), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(train.batch_size // rank.world_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def validation_dataset(
    cached: CachedSplit, data: Data, train: Train, rank: WorkerRank
) -> tf.data.Dataset:
    """This worker's validation batches, repeated: images, masks and sample weights [b].

    Batches are padded with samples of weight 0, so that every worker has the same number. The
    samples are distributed evenly over the batches: Keras averages the losses of batches for
    val_loss, and a last batch of one sample would count as much as a full one.
    """
    batch_size, num_samples = train.batch_size, len(cached.images)
    steps = validation_steps(train, num_samples)
    indices = np.zeros((steps, batch_size), np.int64)
    weights = np.zeros((steps, batch_size), np.float32)
    for step, part in enumerate(np.array_split(np.arange(num_samples), steps)):
        indices[step, : len(part)], weights[step, : len(part)] = part, 1.0

    def load(index: np.int64) -> Sample:
        return load_sample(cached, data, int(index))

    samples = tf.data.Dataset.from_tensor_slices(shard(indices, batch_size, rank)).map(
        _map_numpy(load, cached), num_parallel_calls=tf.data.AUTOTUNE
    )
    weight = tf.data.Dataset.from_tensor_slices(shard(weights, batch_size, rank))
    return (
        tf.data.Dataset.zip((samples, weight))
        .map(lambda sample, weight: (*sample, weight))
        .batch(batch_size // rank.world_size, drop_remainder=True)
        .repeat()
        .prefetch(tf.data.AUTOTUNE)
    )


def load_sample(cached: CachedSplit, data: Data, index: int) -> Sample:
    """A sample without augmentation: image [S, S, C] in 0..1 and mask [S, S, 1], float32."""
    raw = cached.images[index].astype(np.float32)
    image = normalize(raw, data.intensity_low, data.intensity_high, clip=np.clip)
    return image.astype(np.float32), cached.masks[index][..., None].astype(np.float32)


def load_augmented(
    cached: CachedSplit, data: Data, seed: int, epoch: int, sample_index: int
) -> Sample:
    """A sample with the augmentation of an epoch."""
    image, mask = load_sample(cached, data, sample_index % len(cached.images))
    rng = np.random.default_rng((seed, epoch, _AUGMENT, sample_index))
    image, augmented_mask = augment(image, mask[..., 0].astype(np.uint8), rng, data.augment)
    return image, augmented_mask[..., None].astype(np.float32)


def _map_numpy(
    function: Callable[..., Sample], cached: CachedSplit
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """A tf.data mapping that calls a NumPy function and restores the static shapes."""
    size, channels = cached.images.shape[1], cached.images.shape[3]

    def call(*arguments: Any) -> tuple[tf.Tensor, tf.Tensor]:
        image, mask = tf.numpy_function(function, arguments, (tf.float32, tf.float32))
        return (
            tf.ensure_shape(image, (size, size, channels)),
            tf.ensure_shape(mask, (size, size, 1)),
        )

    return call
