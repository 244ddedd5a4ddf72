"""The statistics of the training foreground are exact, and only those of training."""

import cv2
import numpy as np
import pytest

from contract.config import Data
from contract.errors import DataError
from contract.imaging.encode import encode_image
from contract.imaging.mask_encoding import threshold_encoding
from contract.storage import Storage
from tests.slice_folders import data_error, png, settings
from trainer.data.dataset_index import Dataset, intensity_scaling, prepare_dataset
from trainer.data.foreground_intensities import (
    ForegroundCounter,
    Histogram,
    count_foreground,
    count_intensities,
    find_percentile,
    foreground_scaling,
)
from trainer.data.pairing import Pair

RANDOM = np.random.default_rng(0)


def as_counts(intensities: np.ndarray) -> list[tuple[int, int]]:
    values, counts = np.unique(intensities, return_counts=True)
    return [(int(value), int(count)) for value, count in zip(values, counts, strict=True)]


@pytest.mark.parametrize(
    "pixels",
    [
        RANDOM.normal(100, 40, 5001).round().astype(np.int32),
        RANDOM.integers(-1000, 3000, 777),
        np.array([7, 9]),
        np.repeat([3, 4, 65535], [1000, 30, 1]),
    ],
    ids=["normal", "uniform", "two", "outlier"],
)
def test_the_scaling_is_that_of_numpy(pixels: np.ndarray) -> None:
    scaling = foreground_scaling(as_counts(pixels))
    low, high = np.percentile(pixels, [0.5, 99.5])
    clipped = np.clip(pixels.astype(np.float64), low, high)
    assert scaling.window == pytest.approx((low, high), rel=1e-12)
    assert scaling.mean == pytest.approx(clipped.mean(), rel=1e-12)
    assert scaling.std == pytest.approx(clipped.std(), rel=1e-10)


@pytest.mark.parametrize("q", [0.0, 0.5, 50.0, 99.5, 100.0])
@pytest.mark.parametrize("count", [1, 2, 3, 200, 201])
def test_percentiles_are_those_of_numpy(q: float, count: int) -> None:
    pixels = RANDOM.integers(0, 50, count)
    values, counts = np.unique(pixels, return_counts=True)
    assert find_percentile(values, counts, q) == pytest.approx(np.percentile(pixels, q), rel=1e-12)


def test_histograms_add_up_whatever_their_range() -> None:
    parts = [RANDOM.integers(low, low + 50, 100) for low in (-200, -20, 0, 4000)]
    total = sum(map(count_intensities, parts), Histogram())
    assert list(total.to_counts()) == as_counts(np.concatenate(parts))
    assert Histogram().to_counts() == ()
    assert count_intensities(np.zeros((0, 1), np.uint8)).to_counts() == ()


def test_foreground_is_above_each_threshold_and_all_channels_count() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    mask = np.array([[0, 1], [127, 255]], np.uint8)
    above_0, above_127 = count_foreground(image, mask, (0, 127)).values()
    assert above_0.to_counts() == tuple((value, 1) for value in range(3, 12))
    assert above_127.to_counts() == tuple((value, 1) for value in range(9, 12))


def test_the_patients_of_the_pairs_are_counted_and_no_others() -> None:
    counter = ForegroundCounter()
    pairs = [Pair(f"{name}-1", name, None, "i", "m") for name in "abc"]
    for value, pair in enumerate([*pairs, *pairs]):
        image, mask = np.full((2, 2, 1), value, np.uint8), np.ones((2, 2), np.uint8)
        counter.add(pair, count_foreground(image, mask, (0,)))
    assert counter.total(pairs[:2], 0) == ((0, 4), (1, 4), (3, 4), (4, 4))


def put_volume(storage: Storage, folder: str, name: str, value: int = 255) -> np.ndarray:
    """A slice of Hounsfield units with its mask; returns the foreground's intensities."""
    image = RANDOM.normal(40, 200, (24, 24)).round().clip(-1000, 3000).astype(np.int16)
    mask = cv2.circle(np.zeros((24, 24), np.uint8), (12, 12), 6, value, -1)
    storage.write(f"{folder}images/{name}.tif", encode_image(image))
    storage.write(f"{folder}masks/{name}.png", png(mask))
    return image[mask > 0]


@pytest.mark.parametrize("value", [255, 1, 200])
def test_only_the_training_foreground_is_counted(home: Storage, value: int) -> None:
    source = home.child("volumes")
    foreground = {
        split: [
            put_volume(source, f"{split}/", f"P{first + index // 2:02d}-{index}", value)
            for index in range(4)
        ]
        for split, first in (("train", 0), ("valid", 10), ("test", 20))
    }
    data = settings(source, normalize="foreground")
    dataset = prepare_dataset(data, 0, home)
    expected = as_counts(np.concatenate(foreground["train"]))
    assert list(dataset.foreground_intensities) == expected
    # Decoded once: the second time they are read from the index.
    assert prepare_dataset(data, 0, home) == dataset
    assert intensity_scaling(dataset, data) == foreground_scaling(expected)


def test_an_unsplit_dataset_counts_the_patients_that_it_trains_on(
    pool: Storage, home: Storage
) -> None:
    data = settings(pool, layout="unsplit", normalize="foreground")
    dataset = prepare_dataset(data, 0, home)
    pixels = []
    for record in dataset.select("train"):
        image, mask = (
            cv2.imdecode(np.frombuffer(pool.read(key), np.uint8), cv2.IMREAD_GRAYSCALE)
            for key in (record.image, record.mask)
        )
        assert image is not None
        assert mask is not None
        pixels.append(image[mask > 0])
    assert list(dataset.foreground_intensities) == as_counts(np.concatenate(pixels))


def test_the_threshold_of_the_settings_decides_what_is_counted(
    source: Storage, home: Storage
) -> None:
    counted = [
        sum(count for _, count in prepare_dataset(data, 0, home).foreground_intensities)
        for data in (settings(source, mask_threshold=100), settings(source, mask_threshold=254))
    ]
    # Four slices of 24 columns, with 3 or 4 rows of foreground.
    assert counted == [2 * 24 * (3 + 4)] * 2


def test_without_foreground_nothing_can_be_scaled(source: Storage, home: Storage) -> None:
    with pytest.raises(DataError, match="the train split has no foreground"):
        foreground_scaling([])
    for name in ("P00-0", "P00-1", "P01-0", "P01-1"):
        source.write(f"train/masks/{name}.png", png(np.zeros((24, 24), np.uint8)))
    assert "of the train split" in data_error(source, home, normalize="foreground")


def test_a_foreground_of_one_intensity_is_an_error_that_says_what_to_do() -> None:
    data = Data(normalize="foreground")
    dataset = Dataset(
        "/slices", (), "f", threshold_encoding(127), foreground_intensities=((40, 100),)
    )
    with pytest.raises(DataError) as error:
        intensity_scaling(dataset, data)
    assert str(error.value) == (
        "/slices: the percentiles 0.5 and 99.5 of the foreground of the train split are both 40, "
        'so data.normalize = "foreground" has nothing to scale by: set data.normalize = "window", '
        "or check the masks of the train split."
    )


def test_images_in_color_are_rejected(source: Storage, home: Storage) -> None:
    color = np.zeros((24, 24, 3), np.uint8)
    color[..., 0] = 200
    source.write("train/images/P00-0.png", png(color))
    dataset = prepare_dataset(settings(source), 0, home)
    assert dataset.color_image == "train/images/P00-0.png"
    with pytest.raises(DataError, match=r"P00-0\.png is in color, but data\.normalize"):
        intensity_scaling(dataset, Data(normalize="foreground"))
    assert intensity_scaling(dataset, Data()).window == (0.0, 255.0)
