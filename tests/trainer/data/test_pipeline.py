"""Sample order and draws: keyed by (seed, epoch, turn), shared out over workers, resumable."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Config
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.slice_neighbours import find_volume_neighbours
from tests.small import WINDOW, write_split
from trainer.data import pipeline
from trainer.data.cache import CachedSplit
from trainer.data.pipeline import WorkerRank
from trainer.data.preprocessing import standardize

RANDOM = np.random.default_rng(0)
CreateSplit = Callable[[int], CachedSplit]


@pytest.fixture
def create_split(tmp_path: Path) -> CreateSplit:
    def create(count: int) -> CachedSplit:
        images = RANDOM.integers(0, 255, (count, 16, 16, 1), np.uint8)
        images[:, 0, 0, 0] = np.arange(count)
        return write_split(tmp_path / "split", images, (images[..., 0] > 128).astype(np.uint8))

    return create


def create_config(**train: object) -> Config:
    return Config.model_validate(
        {
            "run": {"seed": 3},
            "network": {"image_size": 16, "num_layers": 2},
            "train": {"batch_size": 4, "epochs": 3, "num_workers": 2, **train},
        }
    )


def training_dataset(
    cached: CachedSplit,
    config: Config,
    rank: WorkerRank,
    first_epoch: int,
    scaling: IntensityScaling = WINDOW,
) -> tf.data.Dataset:
    """The batches up to the last epoch: the dataset itself has no end."""
    batches = pipeline.training_dataset(
        cached, config.data, scaling, config.train, config.run.seed, rank, first_epoch
    )
    steps = pipeline.steps_per_epoch(config.train, cached.num_samples)
    return batches.take((config.train.epochs - first_epoch) * steps)


def test_every_sample_comes_once_before_any_comes_again() -> None:
    order = pipeline.epoch_order(seed=0, epoch=1, num_samples=10, length=25).numpy()
    assert sorted(order[:10]) == list(range(10))
    # The second and third turns of the same samples.
    assert sorted(order[10:20]) == list(range(10, 20))
    assert len(set(order[20:])) == 5
    assert set(order[20:]) <= set(range(20, 30))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = pipeline.epoch_order(0, 1, 50, 50)
    assert np.array_equal(first, pipeline.epoch_order(0, 1, 50, 50))
    assert not np.array_equal(first, pipeline.epoch_order(0, 2, 50, 50))
    assert not np.array_equal(first, pipeline.epoch_order(1, 1, 50, 50))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_step_holds_the_same_samples_however_many_workers_share_it(workers: int) -> None:
    order = np.arange(24)
    shares = [
        pipeline.shard(order, 8, WorkerRank(rank, workers)).numpy() for rank in range(workers)
    ]
    steps = [np.concatenate([share.reshape(3, -1)[step] for share in shares]) for step in range(3)]
    assert np.array_equal(np.concatenate(steps), order)


def test_a_resumed_run_sees_what_an_uninterrupted_one_would(
    create_split: CreateSplit,
) -> None:
    cached, settings = create_split(10), create_config()
    rank = WorkerRank(1, 2)
    whole = list(training_dataset(cached, settings, rank, 0).as_numpy_iterator())
    rest = list(training_dataset(cached, settings, rank, 2).as_numpy_iterator())
    steps = pipeline.steps_per_epoch(settings.train, 10)
    assert len(whole) == 3 * steps
    assert len(rest) == steps
    for (image, mask), (again, truth_again) in zip(whole[2 * steps :], rest, strict=True):
        assert np.array_equal(image, again)
        assert np.array_equal(mask, truth_again)


def test_workers_together_train_on_what_one_alone_would(
    create_split: CreateSplit,
) -> None:
    samples = create_split(8)
    alone = list(
        training_dataset(samples, create_config(num_workers=1), WorkerRank(), 0).as_numpy_iterator()
    )
    pairs = [
        list(training_dataset(samples, create_config(), WorkerRank(rank, 2), 0).as_numpy_iterator())
        for rank in range(2)
    ]
    for (images, _), (left, _), (right, _) in zip(alone, *pairs, strict=True):
        assert np.array_equal(images, np.concatenate([left, right]))


def test_a_sample_that_comes_twice_in_an_epoch_is_shown_differently(
    create_split: CreateSplit,
) -> None:
    samples, settings = create_split(2), create_config(steps_per_epoch=1, epochs=1, num_workers=1)
    ((images, _),) = training_dataset(samples, settings, WorkerRank(), 0).as_numpy_iterator()
    # Two samples, two turns each.
    assert len({image.tobytes() for image in images}) == 4


def test_epochs_show_a_sample_differently(create_split: CreateSplit) -> None:
    settings = create_config(batch_size=1, num_workers=1, steps_per_epoch=1, epochs=2)
    dataset = training_dataset(create_split(1), settings, WorkerRank(), 0)
    (first, _), (second, _) = dataset.as_numpy_iterator()
    assert not np.array_equal(first, second)


def test_samples_are_augmented_in_0_to_1_and_standardized_after_it(
    create_split: CreateSplit,
) -> None:
    # Gamma, brightness and noise of the defaults need 0..1; cutout sets 0, which is the low end.
    settings = create_config(num_workers=1, epochs=1).with_values(
        {"data.augment.cutout_probability": 1.0, "data.augment.cutout": 0.9}
    )
    samples, scaling = create_split(8), IntensityScaling(60.5, 180.0, mean=110.0, std=25.0)
    window = IntensityScaling.from_window(*scaling.window)
    standardized, plain = (
        list(training_dataset(samples, settings, WorkerRank(), 0, each).as_numpy_iterator())
        for each in (scaling, window)
    )
    for (images, masks), (in_window, same_masks) in zip(standardized, plain, strict=True):
        assert 0.0 == in_window.min() < in_window.max() <= 1.0
        assert np.allclose(images, standardize(in_window, scaling), atol=1e-6)
        assert images.min() == pytest.approx((60.5 - 110.0) / 25.0, abs=1e-6)
        assert np.array_equal(masks, same_masks)


@pytest.mark.parametrize("count", [5, 8])
def test_validation_shows_every_sample_once_with_weight(
    count: int, create_split: CreateSplit
) -> None:
    cached, settings = create_split(count), create_config()
    steps = pipeline.validation_steps(settings.train, count)
    seen: list[int] = []
    for rank in range(2):
        batches = pipeline.validation_dataset(
            cached, WINDOW, settings.train, WorkerRank(rank, 2)
        ).take(steps)
        for images, _, weights in batches.as_numpy_iterator():
            assert len(images) == 2
            ids = np.round(images[:, 0, 0, 0] * 255).astype(int)
            seen += [int(number) for number in ids[weights > 0]]
    assert sorted(seen) == list(range(count))


def test_some_validation_steps_are_spread_over_the_split(create_split: CreateSplit) -> None:
    settings = create_config(num_workers=1, validation_steps=2)
    batch_size = settings.train.batch_size
    assert pipeline.validation_steps(settings.train, 40) == 2
    batches = pipeline.validation_dataset(create_split(40), WINDOW, settings.train, WorkerRank())
    seen = [
        round(float(image[0, 0, 0]) * 255)
        for images, _, weights in batches.take(2).as_numpy_iterator()
        for image, weight in zip(images, weights, strict=True)
        if weight
    ]
    assert seen == [number * 40 // (2 * batch_size) for number in range(2 * batch_size)]
    # No more than there are.
    assert pipeline.validation_steps(settings.train, 5) == 2
    assert len(pipeline.validation_samples(settings.train, 5)) == 5


@pytest.mark.parametrize("count", [5, 9, 11])
def test_no_validation_batch_counts_for_more_than_its_samples(
    count: int, create_split: CreateSplit
) -> None:
    settings = create_config(num_workers=1)
    batches = pipeline.validation_dataset(create_split(count), WINDOW, settings.train, WorkerRank())
    steps = pipeline.validation_steps(settings.train, count)
    held = [weights.sum() for _, _, weights in batches.take(steps).as_numpy_iterator()]
    assert sum(held) == count
    assert max(held) - min(held) <= 1


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.25, 1), (0.3, 2), (1.0, 4)])
def test_a_fraction_of_each_batch_has_foreground(
    create_split: CreateSplit, fraction: float, count: int
) -> None:
    cached = replace(create_split(12), foreground=(3, 7))
    train = create_config(oversample_foreground=fraction, steps_per_epoch=6).train
    order = pipeline.epoch_order(3, 1, 12, 24)
    mixed = pipeline.oversample_foreground(order, 3, 1, cached, train).numpy()
    for batch, plain in zip(mixed.reshape(6, 4), order.numpy().reshape(6, 4), strict=True):
        extra = [index for index in batch if index >= 24]
        assert len(extra) == count
        assert {index % 12 for index in extra} <= {3, 7}
        assert [index for index in batch if index < 24] == [
            plain[position] for position in range(4) if batch[position] < 24
        ]
    # No sample has the random numbers of another one, and each comes before any comes again.
    assert len(set(mixed)) == 24
    chosen = [index % 12 for index in mixed if index >= 24]
    for first, second in zip(chosen[::2], chosen[1::2], strict=True):
        assert {first, second} == {3, 7}
    again = pipeline.oversample_foreground(order, 3, 1, cached, train).numpy()
    assert np.array_equal(mixed, again)
    other = pipeline.oversample_foreground(order, 3, 2, cached, train).numpy()
    assert not count or len(set(mixed) & set(other)) >= 24 - 6 * count


def test_the_foreground_of_a_batch_is_spread_over_the_workers(create_split: CreateSplit) -> None:
    cached = replace(create_split(12), foreground=(3, 7))
    train = create_config(oversample_foreground=0.5).train
    order = pipeline.epoch_order(3, 1, 12, 12)
    mixed = pipeline.oversample_foreground(order, 3, 1, cached, train)
    for rank in range(2):
        part = pipeline.shard(mixed, 4, WorkerRank(rank, 2)).numpy()
        assert ((part >= 12).reshape(3, 2).sum(axis=1) == 1).all()


def test_no_iterator_has_a_thread_for_autotuning(create_split: CreateSplit) -> None:
    """It would wait for the thread when it is deleted."""
    cached, settings = create_split(8), create_config(num_workers=1)
    rank = WorkerRank()
    training = training_dataset(cached, settings, rank, 0)
    validation = pipeline.validation_dataset(cached, WINDOW, settings.train, rank)
    for dataset in (training, validation):
        assert dataset.options().autotune.enabled is False


def test_an_epoch_has_at_least_one_step() -> None:
    assert pipeline.steps_per_epoch(create_config().train, 3) == 1
    assert pipeline.steps_per_epoch(create_config().train, 11) == 2
    assert pipeline.steps_per_epoch(create_config(steps_per_epoch=7).train, 11) == 7


def test_neighbours_are_the_right_slices_and_augmented_with_the_slice(
    create_split: CreateSplit,
) -> None:
    cached, table = create_split(8), find_volume_neighbours(8, 1)
    settings = create_config(num_workers=1, epochs=1, steps_per_epoch=4)
    # Each channel has noise of its own, which a single one would draw differently.
    settings = settings.with_values({"data.augment.noise_probability": 0.0})
    # Each of the three slices alone, with the random numbers of the sample.
    alone = [replace(cached, stacks=table[:, channel : channel + 1]) for channel in range(3)]
    stacked, *expected = (
        list(training_dataset(split, settings, WorkerRank(), 0).as_numpy_iterator())
        for split in (replace(cached, stacks=table), *alone)
    )
    assert len(stacked) == 4
    for (images, masks), below, (center, same_masks), above in zip(stacked, *expected, strict=True):
        assert np.array_equal(images, np.concatenate([below[0], center, above[0]], axis=-1))
        assert np.array_equal(masks, same_masks)


def test_validation_shows_neighbours(create_split: CreateSplit) -> None:
    cached = replace(create_split(5), stacks=find_volume_neighbours(5, 2))
    settings = create_config(num_workers=1)
    batches = pipeline.validation_dataset(cached, WINDOW, settings.train, WorkerRank()).take(2)
    seen = {}
    for images, _, weights in batches.as_numpy_iterator():
        # The first pixel of a slice is its index.
        for stack in np.round(images[weights > 0][:, 0, 0] * 255).astype(int):
            seen[stack[2]] = stack.tolist()
    assert seen == {
        0: [0, 0, 0, 1, 2],
        1: [0, 0, 1, 2, 3],
        2: [0, 1, 2, 3, 4],
        3: [1, 2, 3, 4, 4],
        4: [2, 3, 4, 4, 4],
    }
