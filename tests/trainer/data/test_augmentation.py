"""Augmentation: seeded draws, image and mask kept aligned, intensity changes on the image alone."""

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Augment
from trainer.data.augmentation import augment_batch, draw
from trainer.data.geometric_transforms import PROBABILITIES
from trainer.data.random_numbers import create_seed, fold_in

NOTHING = {name: 0.0 for name in Augment.model_fields if name.endswith("_probability")}
INTENSITY = ("gamma", "brightness", "contrast", "noise", "blur", "low_resolution", "sharpen")


def create_sample(height: int = 32, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """An image [1, H, W, 1] that equals its mask, asymmetric in every direction."""
    mask = np.zeros((1, height, width, 1), np.float32)
    mask[:, height // 4 : height // 2, width // 3 : width * 3 // 4] = 1
    mask[:, height // 2 : height // 2 + 3, width // 3 : width // 3 + 4] = 1
    return mask, mask.copy()


def run(
    image: np.ndarray, mask: np.ndarray, seeds: list[int], settings: Augment
) -> tuple[np.ndarray, np.ndarray]:
    """A batch of one sample augmented with several seeds."""
    height, width, channels = image.shape[1:]
    drawn = [
        draw(fold_in(create_seed(0), seed), settings, (height, width, channels)) for seed in seeds
    ]
    numbers = {name: tf.stack([each[name] for each in drawn]) for name in drawn[0]}
    images, masks = (tf.repeat(tf.constant(each), len(seeds), axis=0) for each in (image, mask))
    images, masks = augment_batch(images, masks, numbers, settings)
    return images.numpy(), masks.numpy()


def test_a_seed_determines_the_sample_whatever_is_in_its_batch() -> None:
    everything = Augment(**dict.fromkeys(NOTHING, 1.0), flip_horizontal=0.5, right_angles=0.5)
    # The number of pixels is not a multiple of those that a CPU computes at once.
    image = np.random.default_rng(0).random((1, 34, 38, 1), np.float32)
    mask = (image > 0.5).astype(np.float32)
    seeds = [*range(20), 0]
    images, masks = run(image, mask, seeds, everything)
    assert np.array_equal(images[0], images[20])
    assert np.array_equal(masks[0], masks[20])
    assert not np.array_equal(images[0], images[1])
    for size in (1, 2, 3, 5):
        for start in range(0, 20, size):
            few, few_masks = run(image, mask, seeds[start : start + size], everything)
            assert np.array_equal(few, images[start : start + size])
            assert np.array_equal(few_masks, masks[start : start + size])


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
def test_every_transformation_moves_image_and_mask_alike(name: str, size: tuple[int, int]) -> None:
    image, mask = create_sample(*size)
    settings = Augment.model_validate({**NOTHING, name: 1.0})
    moved_images, moved_masks = run(image, mask, list(range(8)), settings)
    assert np.array_equal(moved_images > 0.5, moved_masks > 0)
    assert not np.array_equal(moved_masks, np.repeat(mask, 8, axis=0))
    # Most of the foreground stays in the image.
    assert moved_masks.sum() == pytest.approx(8 * mask.sum(), rel=0.5)


@pytest.mark.parametrize("name", INTENSITY)
def test_intensity_changes_leave_the_mask_alone_and_stay_in_range(name: str) -> None:
    image, mask = create_sample()
    image = 0.2 + 0.5 * image
    settings = Augment.model_validate({**NOTHING, f"{name}_probability": 1.0})
    changed, kept = run(image, mask, [5], settings)
    assert np.array_equal(kept, mask)
    assert not np.array_equal(changed, image)
    assert changed.dtype == np.float32
    assert 0 <= changed.min() < changed.max() <= 1


def test_cutout_sets_one_rectangle_to_zero() -> None:
    image, mask = np.full((1, 32, 32, 1), 0.5, np.float32), create_sample()[1]
    settings = Augment.model_validate({**NOTHING, "cutout_probability": 1.0, "cutout": 0.5})
    changed, kept = run(image, mask, [1, 2, 3], settings)
    assert np.array_equal(kept, np.repeat(mask, 3, axis=0))
    for each in changed[..., 0]:
        rows, columns = np.flatnonzero((each == 0).any(1)), np.flatnonzero((each == 0).any(0))
        assert (each == 0).sum() == len(rows) * len(columns)
        assert 0 < len(rows) <= 16


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_requested_changes_nothing(channels: int) -> None:
    image, mask = create_sample()
    image = np.repeat(image, channels, axis=-1)
    same, kept = run(image, mask, [0, 1], Augment.model_validate(NOTHING))
    assert np.array_equal(same, np.repeat(image, 2, axis=0))
    assert np.array_equal(kept, np.repeat(mask, 2, axis=0))


def test_an_augmentation_that_is_switched_on_does_not_change_the_others() -> None:
    image, mask = create_sample()
    rotated = Augment.model_validate({**NOTHING, "rotation_probability": 1.0})
    noisy = rotated.model_copy(update={"noise_probability": 1.0})
    assert np.array_equal(run(image, mask, [4], rotated)[1], run(image, mask, [4], noisy)[1])


def test_an_augmentation_applies_with_its_probability() -> None:
    image, mask = create_sample()
    settings = Augment.model_validate({**NOTHING, "flip_vertical": 0.25})
    _, masks = run(image, mask, list(range(400)), settings)
    flipped = sum(not np.array_equal(each, mask[0]) for each in masks)
    assert 70 <= flipped <= 130


@pytest.mark.parametrize("name", PROBABILITIES)
def test_all_channels_of_an_image_are_changed_alike(name: str) -> None:
    image = np.random.default_rng(0).random((1, 32, 48, 1)).astype(np.float32)
    stack, mask = np.repeat(image, 5, axis=-1), (image > 0.5).astype(np.float32)
    settings = Augment.model_validate({**NOTHING, name: 1.0})
    changed, _ = run(stack, mask, [1, 2], settings)
    assert not np.array_equal(changed, np.repeat(stack, 2, axis=0))
    assert np.array_equal(changed, np.repeat(changed[..., :1], 5, axis=-1))
