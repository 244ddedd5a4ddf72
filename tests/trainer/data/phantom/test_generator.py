"""The phantom: the same by seed, not available by thresholding, and drawn in seconds."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.config import Phantom
from contract.imaging.decode import read_image
from contract.imaging.mask_encoding import threshold_encoding
from contract.storage import open_storage
from trainer.data.phantom.generator import (
    PhantomSlice,
    create_patient,
    list_slices,
    render_slice,
    write_phantom,
)

SMALL = Phantom(train_patients=3, valid_patients=2, test_patients=3, slices=4)


@pytest.fixture(scope="module")
def volumes() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and masks [patients, slices, size, size] of a small phantom."""
    numbers = sorted({each.patient for each in list_slices(SMALL)})
    pairs = [
        [render(patient, index, SMALL) for index in range(SMALL.slices)] for patient in numbers
    ]
    stacked = np.array(pairs)
    return stacked[:, :, 0], stacked[:, :, 1]


def render(
    patient: int, index: int, phantom: Phantom, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return render_slice(
        create_patient(seed, patient), PhantomSlice("train", patient, index), phantom, seed
    )


def test_each_split_has_its_own_patients() -> None:
    result = list(list_slices(SMALL))
    assert len(result) == 8 * 4
    assert len({each.name for each in result}) == len(result)
    homes: dict[int, set[str]] = {}
    for each in result:
        homes.setdefault(each.patient, set()).add(each.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert result[0].name == "PHANTOM_0001-0000"


def test_more_training_patients_leave_the_others_as_they_are() -> None:
    more = Phantom(train_patients=7, valid_patients=2, test_patients=3, slices=4)
    assert set(list_slices(SMALL)) < set(list_slices(more))


def test_a_slice_is_decided_by_seed_patient_and_index() -> None:
    again = Phantom(train_patients=9, valid_patients=1, test_patients=1, slices=4)
    for one, other in zip(render(2, 1, SMALL), render(2, 1, again), strict=True):
        assert np.array_equal(one, other)
    for patient, index, seed in ((3, 1, 0), (2, 2, 0), (2, 1, 5)):
        assert not np.array_equal(render(2, 1, SMALL)[0], render(patient, index, SMALL, seed)[0])


def test_every_slice_shows_some_of_the_organ(
    volumes: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    fractions = volumes[1].mean(axis=(2, 3))
    assert fractions.min() > 0.005
    assert 0.02 < fractions.mean() < 0.05


def test_no_band_of_intensities_finds_the_organ(
    volumes: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    """Of all bands [low, high], the best has a mean Dice by patient below 0.35.

    So has the mean over patients of each one's own best band.
    """
    dice = np.array([band_dice(*pair) for pair in zip(*volumes, strict=True)])
    assert dice.mean(axis=0).max() < 0.35
    assert dice.max(axis=(1, 2)).mean() < 0.35


def band_dice(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[256, 256] Dice of low <= intensity <= high for every low (row) and high (column)."""
    chosen, hit = (
        np.concatenate([[0], np.bincount(values, minlength=256).cumsum()])
        for values in (image.ravel(), image[mask > 0])
    )
    hits, sizes = hit[None, 1:] - hit[:-1, None], chosen[None, 1:] - chosen[:-1, None]
    return np.triu(2.0 * hits / np.maximum(sizes + hit[-1], 1))


def test_band_dice_is_the_dice_of_a_band() -> None:
    image, mask = render(1, 2, SMALL)
    result = (image >= 120) & (image <= 180)
    dice = 2 * (result & (mask > 0)).sum() / (result.sum() + mask.sum())
    assert band_dice(image, mask)[120, 180] == pytest.approx(dice)


def test_organ_and_neighbours_are_of_one_intensity(
    volumes: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    images, masks = volumes
    low, high = np.percentile(images[masks > 0], [10, 90])
    alike = (images >= low) & (images <= high)
    assert (alike & (masks == 0)).sum() > 2 * (alike & (masks > 0)).sum()


@pytest.mark.parametrize("size", [64, 256])
def test_the_picture_is_the_same_at_any_size(size: int) -> None:
    def masked(side: int) -> float:
        mask = render(1, 2, Phantom(slices=4, size=side))[1]
        return float(mask.mean())

    assert masked(size) == pytest.approx(masked(128), rel=0.1)


def test_the_files_are_what_was_drawn(tmp_path: Path) -> None:
    tiny = Phantom(train_patients=1, valid_patients=1, test_patients=1, slices=2, size=64)
    storage, reports = open_storage(str(tmp_path)), list[tuple[int, int | None]]()
    write_phantom(tiny, 0, storage, lambda done, total, _: reports.append((done, total)))
    assert reports == [(done, 6) for done in range(1, 7)]
    assert len(storage.list_objects()) == 12
    image, mask = render(1, 1, tiny)
    name = "PHANTOM_0001-0001.png"
    assert np.array_equal(read_image(storage, f"train/images/{name}")[..., 0], image)
    assert np.array_equal(threshold_encoding(127).read(storage, f"train/masks/{name}"), mask)
    assert set(np.unique(mask)) == {0, 1}
