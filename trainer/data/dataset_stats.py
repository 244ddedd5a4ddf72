"""Statistics of a dataset: slices, foreground and intensities of patients and splits."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contract.imaging.decode import read_image
from contract.imaging.mask_encoding import MaskEncoding
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage
from trainer.data.dataset_index import SPLITS, Dataset, SliceRecord, Split

MIN_INTENSITY = -(2**15)
# Of signed and of unsigned 16 bits.
_INTENSITIES = 2**15 + 2**16
_READERS = 8


@dataclass(frozen=True)
class PatientStats:
    """The slices of one patient in one split."""

    patient: str
    split: Split
    slices: int
    empty: int
    """Slices without foreground."""
    foreground: float
    """Mean foreground fraction of the patient's slices."""
    min_foreground: float
    max_foreground: float


@dataclass(frozen=True)
class SplitStats:
    """The slices of a split."""

    split: Split
    patients: int
    slices: int
    empty: int
    """Slices without foreground."""
    foreground: float
    """Mean foreground fraction of its slices."""
    below: float
    """Fraction of pixels below the intensity window, which training clips."""
    above: float
    """Fraction of pixels above the intensity window, which training clips."""


def _zeros() -> NDArray[np.int64]:
    return np.zeros(_INTENSITIES, np.int64)


@dataclass(frozen=True)
class IntensityHistogram:
    """The number of pixels of a split per raw intensity; entry i is the intensity i - 32768."""

    pixels: NDArray[np.int64] = field(default_factory=_zeros)
    foreground: NDArray[np.int64] = field(default_factory=_zeros)

    def fraction(self, entries: slice) -> float:
        """The fraction of all pixels in a range of entries."""
        return float(self.pixels[entries].sum() / max(1, self.pixels.sum()))


@dataclass(frozen=True)
class _SliceHistogram:
    """The histogram of one slice, which starts at min_intensity, and its format."""

    split: Split
    format_name: str
    min_intensity: int
    pixels: NDArray[np.int64]
    foreground: NDArray[np.int64]


def measure_intensities(
    dataset: Dataset, storage: Storage, on_progress: ProgressCallback = no_progress
) -> tuple[dict[Split, IntensityHistogram], dict[str, int]]:
    """The intensities of each split, and the number of slices of each size and type."""
    histograms: dict[Split, IntensityHistogram] = {split: IntensityHistogram() for split in SPLITS}
    formats: dict[str, int] = {}

    def measure(record: SliceRecord) -> _SliceHistogram:
        return _measure_slice(record, storage, dataset.masks)

    with ThreadPoolExecutor(_READERS, thread_name_prefix="inspect") as pool:
        for done, measured in enumerate(pool.map(measure, dataset.slices), start=1):
            start = measured.min_intensity - MIN_INTENSITY
            entries = slice(start, start + len(measured.pixels))
            histograms[measured.split].pixels[entries] += measured.pixels
            histograms[measured.split].foreground[entries] += measured.foreground
            formats[measured.format_name] = formats.get(measured.format_name, 0) + 1
            on_progress(done, len(dataset.slices), "")
    return histograms, dict(sorted(formats.items(), key=lambda item: -item[1]))


def _measure_slice(record: SliceRecord, storage: Storage, masks: MaskEncoding) -> _SliceHistogram:
    """Read a slice and its mask and count the intensities of both; all channels count."""
    image = read_image(storage, record.image)
    mask = masks.read(storage, record.mask)
    min_intensity = int(image.min())
    shifted = image.astype(np.int64) - min_intensity
    pixels = np.bincount(shifted.ravel())
    foreground = np.bincount(shifted[mask != 0].ravel(), minlength=len(pixels))
    color = {1: "grey", 3: "RGB"}[image.shape[2]]
    format_name = f"{image.shape[1]} × {image.shape[0]} {color} {image.dtype}"
    return _SliceHistogram(record.split, format_name, min_intensity, pixels, foreground)


def patient_stats(records: Sequence[SliceRecord]) -> tuple[PatientStats, ...]:
    """The patients of each split, in the order train, valid, test and then by name."""
    fractions: dict[tuple[int, str], list[float]] = {}
    for record in records:
        key = (SPLITS.index(record.split), record.patient)
        fractions.setdefault(key, []).append(record.foreground)
    return tuple(
        _patient_stats(SPLITS[index], patient, values)
        for (index, patient), values in sorted(fractions.items())
    )


def _patient_stats(split: Split, patient: str, fractions: Sequence[float]) -> PatientStats:
    return PatientStats(
        patient=patient,
        split=split,
        slices=len(fractions),
        empty=sum(fraction == 0 for fraction in fractions),
        foreground=float(np.mean(fractions)),
        min_foreground=min(fractions),
        max_foreground=max(fractions),
    )


def split_stats(
    split: Split,
    records: Sequence[SliceRecord],
    histogram: IntensityHistogram,
    window: tuple[float, float],
) -> SplitStats:
    """The statistics of a split that has at least one slice; window: low and high intensity."""
    low = int(np.ceil(window[0])) - MIN_INTENSITY
    high = int(np.floor(window[1])) - MIN_INTENSITY
    return SplitStats(
        split=split,
        patients=len({record.patient for record in records}),
        slices=len(records),
        empty=sum(record.foreground == 0 for record in records),
        foreground=float(np.mean([record.foreground for record in records])),
        below=histogram.fraction(slice(0, max(0, low))),
        above=histogram.fraction(slice(max(0, high + 1), None)),
    )
