"""Slices, foreground and intensities are counted by patient and by split."""

import numpy as np
import pytest

from contract.storage import open_storage
from tests.trainer.conftest import Prepared
from trainer.data.dataset_index import SPLITS, SliceRecord, Split
from trainer.data.dataset_stats import (
    MIN_INTENSITY,
    IntensityHistogram,
    PatientStats,
    SplitStats,
    measure_intensities,
    patient_stats,
    split_stats,
)

Histograms = dict[Split, IntensityHistogram]


@pytest.fixture(scope="module")
def histograms(prepared: Prepared) -> Histograms:
    return measure_intensities(prepared.dataset, open_storage(prepared.dataset.root))[0]


def stats_of_splits(
    prepared: Prepared, histograms: Histograms, window: tuple[float, float]
) -> list[SplitStats]:
    return [
        split_stats(split, prepared.dataset.select(split), histograms[split], window)
        for split in SPLITS
    ]


def test_splits_are_counted(prepared: Prepared, histograms: Histograms) -> None:
    train, valid, test = stats_of_splits(prepared, histograms, (0.0, 255.0))
    assert (train.split, train.patients, train.slices, train.empty) == ("train", 3, 4, 1)
    assert (valid.split, valid.patients, valid.slices, valid.empty) == ("valid", 1, 1, 0)
    assert (test.split, test.patients, test.slices, test.empty) == ("test", 5, 6, 2)
    area = 40 * 60
    assert train.foreground == pytest.approx((200 + 200 + 100 + 0) / area / 4)


def test_pixels_outside_the_window_are_reported(prepared: Prepared, histograms: Histograms) -> None:
    train, _, test = stats_of_splits(prepared, histograms, (0.0, 255.0))
    assert (train.below, train.above) == (0.0, 0.0)
    # The 16-bit slice is 50 x 60, and its 200 pixels of foreground are at 1000.
    assert test.above == pytest.approx(200 / (5 * 40 * 60 + 50 * 60))


def test_a_narrow_window_clips_on_both_sides(prepared: Prepared, histograms: Histograms) -> None:
    train, _, _ = stats_of_splits(prepared, histograms, (40.5, 199.5))
    bright = 200 / 2400
    assert train.above == pytest.approx(bright)
    assert train.below == pytest.approx(1 - bright)


def test_intensities_at_the_limits_of_the_window_are_not_clipped(
    prepared: Prepared, histograms: Histograms
) -> None:
    train, _, _ = stats_of_splits(prepared, histograms, (40.0, 200.0))
    assert train.above == 0.0
    # One pixel of each slice is darker than its background of 40.
    assert train.below == pytest.approx(1 / 2400)


@pytest.mark.parametrize(("low", "high"), [(-1e6, 1e6), (-32768.0, 65535.0)])
def test_a_window_wider_than_16_bits_clips_nothing(
    prepared: Prepared, histograms: Histograms, low: float, high: float
) -> None:
    for stats in stats_of_splits(prepared, histograms, (low, high)):
        assert (stats.below, stats.above) == (0.0, 0.0)


def test_every_pixel_and_every_foreground_pixel_is_counted(
    prepared: Prepared, histograms: Histograms
) -> None:
    test = histograms["test"]
    assert test.pixels.sum() == 5 * 40 * 60 + 50 * 60
    assert test.pixels[1000 - MIN_INTENSITY] == test.foreground[1000 - MIN_INTENSITY] == 200
    area = {record.name: record.height * record.width for record in prepared.dataset.slices}
    expected = sum(
        record.foreground * area[record.name] for record in prepared.dataset.select("test")
    )
    assert test.foreground.sum() == pytest.approx(expected)
    # All three channels of an RGB slice count.
    assert histograms["valid"].pixels.sum() == 3 * 40 * 60


def test_slices_are_counted_by_size_and_type_and_reported(prepared: Prepared) -> None:
    reports: list[tuple[int, int | None, str]] = []
    storage = open_storage(prepared.dataset.root)
    _, formats = measure_intensities(
        prepared.dataset, storage, lambda *progress: reports.append(progress)
    )
    assert next(iter(formats.items())) == ("60 × 40 grey uint8", 9)
    assert formats == {
        "60 × 40 grey uint8": 9,
        "60 × 40 RGB uint8": 1,
        "60 × 50 grey int32": 1,
    }
    assert reports == [(done, 11, "") for done in range(1, 12)]


def record(patient: str, split: Split, foreground: float) -> SliceRecord:
    return SliceRecord("name", patient, split, "image", "mask", 8, 8, (foreground,))


def test_patients_are_ordered_by_split_and_name() -> None:
    records = [
        record("c", "test", 0.5),
        record("b", "train", 0.2),
        record("a", "train", 0.1),
        record("b", "train", 0.0),
        record("b", "test", 0.3),
    ]
    assert patient_stats(records) == (
        PatientStats("a", "train", 1, 0, 0.1, 0.1, 0.1),
        PatientStats("b", "train", 2, 1, 0.1, 0.0, 0.2),
        PatientStats("b", "test", 1, 0, 0.3, 0.3, 0.3),
        PatientStats("c", "test", 1, 0, 0.5, 0.5, 0.5),
    )


def test_the_fraction_of_an_empty_histogram_is_zero() -> None:
    assert IntensityHistogram().fraction(slice(None)) == 0.0
    pixels = np.zeros(8, np.int64)
    pixels[:2] = 3, 1
    assert IntensityHistogram(pixels).fraction(slice(1, None)) == 0.25
