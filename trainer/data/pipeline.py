"""The samples of a training worker: fixed-size slices in an order seeded by (seed, epoch).

The order of samples and the random numbers of augmentation are functions of (seed, epoch, sample
index) alone. A sample index is the number of a sample plus the number of samples for each time that
it has occurred in the epoch before. A resumed run therefore uses the samples that an uninterrupted
run would use, and the samples of a step do not depend on the number of workers.

The functions of the datasets are traced without AutoGraph, which converts Python control flow
over tensors: there is none, and the conversion takes seconds of the first step.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.config import Data, Train
from contract.host_info import cpu_count
from contract.imaging.intensity_scaling import IntensityScaling
from trainer.components.class_maps import one_hot
from trainer.data.augmentation import SampleBatch, augment_batch, draw
from trainer.data.cache import CachedSplit
from trainer.data.preprocessing import apply_window, normalize, standardize
from trainer.data.random_numbers import (
    AUGMENT,
    FOREGROUND_ORDER,
    ORDER,
    create_seed,
    fold_in,
    uniform,
)

# As many augmented batches, and those that are prefetched, may be in memory of each worker.
_MAX_PARALLEL_CALLS = 16
# Batches that are ready before a step asks for them.
_PREFETCHED = 2

Sample = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True)
class WorkerRank:
    """Which worker this is: rank from 0 to world_size - 1."""

    rank: int = 0
    world_size: int = 1


def steps_per_epoch(train: Train, num_samples: int) -> int:
    """Training steps of an epoch: as set, else the complete batches of the split (at least 1)."""
    return train.steps_per_epoch or max(1, num_samples // train.batch_size)


def validation_steps(train: Train, num_samples: int) -> int:
    """Steps that use every one of the validation samples once."""
    return math.ceil(len(validation_samples(train, num_samples)) / train.batch_size)


def validation_samples(train: Train, num_samples: int) -> NDArray[np.int64]:
    """The samples of the validation split that are used after each epoch.

    All of them, or those of train.validation_steps batches, evenly spaced over the split so that
    they are of many patients.
    """
    limit = train.validation_steps or num_samples
    count = min(num_samples, limit * train.batch_size)
    return np.arange(count) * num_samples // count


def epoch_order(seed: int, epoch: int | tf.Tensor, num_samples: int, length: int) -> tf.Tensor:
    """The sample indices [length] of an epoch: every sample once before any occurs again."""
    return _shuffle(fold_in(create_seed(seed), ORDER, epoch), num_samples, length)


def _shuffle(seed: tf.Tensor, num_samples: int, length: int) -> tf.Tensor:
    """Sample indices [length]; the n-th round of all samples starts at n * num_samples."""
    rounds = math.ceil(length / num_samples)
    keys = uniform(seed, (rounds, num_samples))
    offsets = tf.range(rounds, dtype=tf.int64)[:, None] * num_samples
    orders = tf.argsort(keys, axis=1, stable=True)
    return tf.reshape(tf.cast(orders, tf.int64) + offsets, [-1])[:length]


def oversample_foreground(
    order: tf.Tensor, seed: int, epoch: int | tf.Tensor, cached: CachedSplit, train: Train
) -> tf.Tensor:
    """The order with some places of every batch taken by samples with foreground.

    They are train.oversample_foreground of a batch, rounded up, spread evenly over it and so over
    the workers. They have an order of their own, every one of them once before any occurs again.
    Their sample indices follow after those of the order, so that their random numbers differ.
    """
    # Rounded first, because 0.28 * 25 is more than 7.
    count = math.ceil(round(train.oversample_foreground * train.batch_size, 9))
    num_foreground = len(cached.foreground)
    if not count or num_foreground == cached.num_samples:
        return order
    batches = tf.reshape(order, [-1, train.batch_size])
    steps = steps_per_epoch(train, cached.num_samples)
    order_seed = fold_in(create_seed(seed), FOREGROUND_ORDER, epoch)
    positions = _shuffle(order_seed, num_foreground, steps * count)
    first_round = math.ceil(steps * train.batch_size / cached.num_samples)
    rounds = first_round + tf.math.floordiv(positions, num_foreground)
    samples = tf.gather(
        tf.constant(cached.foreground, tf.int64), tf.math.floormod(positions, num_foreground)
    )
    chosen = tf.reshape(samples + rounds * cached.num_samples, [-1, count])
    replaced = {number * train.batch_size // count: number for number in range(count)}
    sources = [replaced.get(index, count + index) for index in range(train.batch_size)]
    return tf.reshape(tf.gather(tf.concat([chosen, batches], 1), sources, axis=1), [-1])


def sample_seed(seed: int, epoch: int | tf.Tensor, sample_index: int | tf.Tensor) -> tf.Tensor:
    """The seed, int32 [2], of the augmentation of a sample in an epoch."""
    return fold_in(create_seed(seed), AUGMENT, epoch, sample_index)


def shard(values: Any, batch_size: int, rank: WorkerRank) -> tf.Tensor:
    """The values of this worker: its part of each batch of a sequence of complete batches."""
    batches = tf.reshape(values, [-1, rank.world_size, batch_size // rank.world_size])
    return tf.reshape(batches[:, rank.rank], [-1])


def training_dataset(
    cached: CachedSplit,
    data: Data,
    scaling: IntensityScaling,
    train: Train,
    seed: int,
    rank: WorkerRank,
    first_epoch: int,
) -> tf.data.Dataset:
    """This worker's training batches, from an epoch on, without end.

    Images [b, H, W, C] and masks [b, H, W, K] of 0 and 1, a channel for each of the K classes; b is
    train.batch_size divided by the number of workers. All of it is TensorFlow's: slices are read in
    parallel one by one, and augmented in batches, with intensities in 0..1.
    """
    length = steps_per_epoch(train, cached.num_samples) * train.batch_size

    @tf.autograph.experimental.do_not_convert
    def epoch_sample_order(epoch: tf.Tensor) -> tf.data.Dataset:
        order = epoch_order(seed, epoch, cached.num_samples, length)
        order = oversample_foreground(order, seed, epoch, cached, train)
        order = shard(order, train.batch_size, rank)
        return tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(order), epoch), order))

    @tf.autograph.experimental.do_not_convert
    def load(epoch: tf.Tensor, sample_index: tf.Tensor) -> tuple[Any, ...]:
        index = tf.math.floormod(sample_index, cached.num_samples)
        image, mask = cached.read_tensors(index)
        numbers = draw(sample_seed(seed, epoch, sample_index), data.augment, cached.sample_shape)
        return image, mask, numbers

    @tf.autograph.experimental.do_not_convert
    def augment(images: tf.Tensor, masks: tf.Tensor, numbers: dict[str, tf.Tensor]) -> SampleBatch:
        images = apply_window(images, scaling)
        images, maps = augment_batch(
            images, one_hot(masks, cached.num_classes), numbers, data.augment
        )
        return standardize(images, scaling), maps

    return (
        tf.data.Dataset.counter(first_epoch)
        .flat_map(epoch_sample_order)
        .map(load, num_parallel_calls=_count_parallel_calls(), deterministic=True)
        .batch(train.batch_size // rank.world_size, drop_remainder=True)
        .map(augment, num_parallel_calls=_count_parallel_calls(), deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        .prefetch(_PREFETCHED)
        .with_options(_create_dataset_options())
    )


def validation_dataset(
    cached: CachedSplit, scaling: IntensityScaling, train: Train, rank: WorkerRank
) -> tf.data.Dataset:
    """This worker's validation batches, repeated: images, masks and sample weights [b].

    Images and masks are as in training_dataset.
    Batches are padded with samples of weight 0, so that every worker has the same number. The
    samples are distributed evenly over the batches: Keras averages the losses of batches for
    val_loss, and a last batch of one sample would count as much as a full one.
    """
    batch_size, num_samples = train.batch_size, cached.num_samples
    steps = validation_steps(train, num_samples)
    samples = validation_samples(train, num_samples)
    indices = np.zeros((steps, batch_size), np.int64)
    weights = np.zeros((steps, batch_size), np.float32)
    for step, part in enumerate(np.array_split(samples, steps)):
        indices[step, : len(part)], weights[step, : len(part)] = part, 1.0

    @tf.autograph.experimental.do_not_convert
    def load(index: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image, mask = cached.read_tensors(index)
        return normalize(image, scaling), one_hot(mask, cached.num_classes), weight

    shards = (shard(indices, batch_size, rank), shard(weights, batch_size, rank))
    return (
        tf.data.Dataset.from_tensor_slices(shards)
        .map(load, num_parallel_calls=_count_parallel_calls())
        .batch(batch_size // rank.world_size, drop_remainder=True)
        .repeat()
        .prefetch(_PREFETCHED)
        .with_options(_create_dataset_options())
    )


def _count_parallel_calls() -> int:
    """How many slices are read, and batches augmented, at the same time.

    One for each CPU that the process may use, up to 16. These are not only train.cpus_per_worker:
    a worker with a GPU computes little on its CPUs, and its batches must be ready in time.
    """
    return min(cpu_count(), _MAX_PARALLEL_CALLS)


def _create_dataset_options() -> tf.data.Options:
    """Options of both datasets: no autotuning.

    An iterator with autotuning sometimes waits for the next round of its autotuning thread when it
    is deleted, at the end of a validation or a training: 5 s were measured, and the rounds become
    rarer, down to one a minute (docs/lab-notes.md).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def load_sample(cached: CachedSplit, scaling: IntensityScaling, index: int) -> Sample:
    """A sample without augmentation: image [H, W, C] in 0..1, and class indices [H, W].

    The input of the network is standardize(image).
    """
    raw, mask = cached.read(index)
    image = apply_window(raw.astype(np.float32), scaling, clip=np.clip)
    return image.astype(np.float32), mask
