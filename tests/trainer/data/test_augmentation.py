"""Augmentation: keyed draws, one geometry for image and mask, intensity on the image alone."""

import numpy as np
import pytest

from contract.config import Augment
from trainer.data.augmentation import augment

STILL = Augment(geometry=0, gamma=1, gain=0, noise=0)


def sample(side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((side, side), np.uint8)
    mask[8:16, 10:24] = 1
    return mask[..., None].astype(np.float32), mask


def test_the_same_key_gives_the_same_sample_and_another_key_another() -> None:
    image, mask = sample()
    first, again, other = (
        augment(image, mask, np.random.default_rng(key), Augment()) for key in (1, 1, 2)
    )
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_geometry_moves_image_and_mask_alike() -> None:
    image, mask = sample(64)
    settings = Augment(gamma=1, gain=0, noise=0, flip_horizontal=0.5, flip_vertical=0.5)
    moved = 0
    for key in range(20):
        warped, moved_mask = augment(image, mask, np.random.default_rng(key), settings)
        assert np.array_equal(warped[..., 0] > 0.5, moved_mask > 0)
        moved += not np.array_equal(moved_mask, mask)
    assert moved == 20


def test_intensity_leaves_the_mask_alone_and_stays_in_range() -> None:
    image, mask = sample()
    settings = Augment(geometry=0, gamma=2, gain=0.5, noise=0.2)
    changed, kept = augment(image, mask, np.random.default_rng(0), settings)
    assert np.array_equal(kept, mask)
    assert not np.array_equal(changed, image)
    assert changed.dtype == np.float32
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_requested_changes_nothing(channels: int) -> None:
    image, mask = sample()
    image = np.repeat(image, channels, axis=-1)
    same, kept = augment(image, mask, np.random.default_rng(0), STILL)
    assert np.array_equal(same, image)
    assert np.array_equal(kept, mask)


def test_a_full_turn_scale_and_shift_keep_the_area_of_the_organ_roughly() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[50:70, 40:80] = 1
    image = mask[..., None].astype(np.float32)
    settings = Augment(rotation=180, scale=1, shift=0.1)
    _, moved = augment(image, mask, np.random.default_rng(3), settings)
    assert moved.sum() == pytest.approx(mask.sum(), rel=0.15)
