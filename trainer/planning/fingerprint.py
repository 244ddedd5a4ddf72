"""The fingerprint of a dataset: what the choice of settings depends on.

Files are paired, decoded and checked as `segfleet prepare` does it; of large datasets, an evenly
spaced sample. Nothing is written.
"""

import statistics
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from contract.config import Data
from contract.errors import DataError
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.mask_encoding import MaskEncoding, threshold_encoding
from contract.imaging.mask_values import (
    POSSIBLE_THRESHOLDS,
    decide_threshold,
    equivalent_threshold,
)
from contract.imaging.segmentation_class import Color, create_classes
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage
from trainer.data.dataset_index import (
    Dataset,
    SliceRecord,
    class_encoding,
    counted_thresholds,
)
from trainer.data.dataset_stats import MIN_INTENSITY, measure_intensities
from trainer.data.foreground_intensities import (
    HIGH_PERCENTILE,
    LOW_PERCENTILE,
    ForegroundCounter,
    find_percentile,
    foreground_scaling,
)
from trainer.data.importers.dataset_import import read_volume_records
from trainer.data.importers.slice_files import VolumeRecord
from trainer.data.pair_checks import DecodedPair, check_pairs, class_fractions
from trainer.data.pairing import Pair, list_files, pair_files
from trainer.data.splits import SPLITS, Split, find_patient, stratified_split
from trainer.planning.patient_names import choose_patient_regex

MAX_DECODED = 1000
"""Slices that are decoded at most."""
_MAX_HISTOGRAMS = 200
# Masks with more values, or with bright values that are closer, have smoothed edges or are
# compressed; they do not have a class for each value.
_MAX_CLASSES, _MIN_CONTRAST = 20, 20


@dataclass(frozen=True)
class ClassStats:
    """A class in the masks of the decoded training slices.

    value: as in data.classes; None for a foreground above a threshold. slices: the fraction of the
    slices that contain it; fraction: the mean fraction of the pixels of these slices.
    """

    name: str
    value: int | Color | None
    slices: float
    fraction: float


@dataclass(frozen=True)
class DatasetFingerprint:
    """What the settings of a dataset depend on. Sizes are in pixels, intensities as in the files.

    Medians, intensities and fractions are those of the decoded slices; the intensities of the
    foreground and the fractions are those of the training split alone.
    """

    layout: str
    patient_id_regex: str
    example: tuple[str, str]
    """The name of a slice, and the patient in it."""
    slices: Mapping[Split, int]
    patients: Mapping[Split, int]
    decoded: int
    """How many slices were decoded, evenly spaced over all."""
    height: int
    """Median of all heights."""
    width: int
    max_height: int
    max_width: int
    is_color: bool
    is_8_bit: bool
    min_intensity: int
    max_intensity: int
    low_intensity: float
    """The percentile 0.5 of all pixels."""
    high_intensity: float
    """The percentile 99.5."""
    foreground: IntensityScaling | None
    """How nnU-Net scales by the foreground; None if all of it has one intensity."""
    mask_threshold: int | None
    classes: tuple[ClassStats, ...]
    foreground_slices: float
    """The fraction of the training slices that have foreground."""
    foreground_rows: tuple[float, float] = (0.0, 1.0)
    """Between which rows all foreground of the training masks is, as fractions of the height."""
    foreground_columns: tuple[float, float] = (0.0, 1.0)
    """The same for the columns, as fractions of the width."""
    spacing_mm: tuple[float, float] | None = None
    """Median distance of rows and of columns, if the dataset was imported."""
    has_class_names: bool = True
    """Whether the names of the classes are those of the settings or of the import."""


@dataclass(frozen=True)
class _Sample:
    """Decoded pairs, and what their masks mean."""

    decoded: Sequence[DecodedPair]
    encoding: MaskEncoding
    fractions: Sequence[tuple[float, ...]]
    """The fraction of each mask that each class has."""
    counter: ForegroundCounter
    threshold: int
    """That of the foreground whose intensities were counted."""
    has_class_names: bool


def measure_fingerprint(
    data: Data,
    given: Collection[str],
    seed: int,
    storage: Storage,
    on_progress: ProgressCallback = no_progress,
) -> DatasetFingerprint:
    """Look at a dataset.

    Args:
        data: The settings [data], as far as they are given.
        given: The names of those that are given; layout, patient_id_regex, mask_threshold and
            classes are recognized otherwise.
        seed: The seed by which an unsplit dataset will be split.
        storage: The folder of the dataset.
        on_progress: Called after each slice.

    Returns:
        The fingerprint.

    Raises:
        DataError: There are no slices or masks, a decoded file cannot be used, or patients or
            foreground cannot be recognized.
    """
    if "layout" not in given:
        data = data.model_copy(update={"layout": _recognize_layout(data, storage)})
    regex, pairs = _pair_slices(data, "patient_id_regex" in given, storage)
    records = read_volume_records(storage)
    sample = _decode_sample(select_sample(pairs, MAX_DECODED), data, records, storage, on_progress)
    split_of = _assign_patients(pairs, sample, data, seed)
    training = [
        index
        for index, each in enumerate(sample.decoded)
        if split_of[each.pair.patient, each.pair.split] == "train"
    ]
    fractions = [sample.fractions[index] for index in training]
    if not any(map(sum, fractions)):
        raise DataError(
            f"{storage.url}: none of {len(training)} masks of the train split has foreground: "
            "check the masks, or set data.mask_threshold or data.classes."
        )
    counts = sample.counter.total(
        [sample.decoded[index].pair for index in training], sample.threshold
    )
    histogram, formats = _measure_pixels(sample, storage)
    rows, columns = _find_foreground(
        [sample.decoded[index].pair.mask for index in training], sample.encoding, storage
    )
    values = np.flatnonzero(histogram)
    low, high = (
        find_percentile(values + MIN_INTENSITY, histogram[values], percentile)
        for percentile in (LOW_PERCENTILE, HIGH_PERCENTILE)
    )
    heights, widths = zip(*((each.height, each.width) for each in sample.decoded), strict=True)
    splits = [split_of[pair.patient, pair.split] for pair in pairs]
    assigned = {(own, pair.patient) for own, pair in zip(splits, pairs, strict=True)}
    return DatasetFingerprint(
        layout=data.layout,
        patient_id_regex=regex,
        example=(pairs[0].name, pairs[0].patient),
        slices={split: splits.count(split) for split in SPLITS},
        patients={split: sum(own == split for own, _ in assigned) for split in SPLITS},
        decoded=len(sample.decoded),
        height=round(statistics.median(heights)),
        width=round(statistics.median(widths)),
        max_height=max(heights),
        max_width=max(widths),
        is_color=any(each.is_color for each in sample.decoded),
        is_8_bit=all(name.endswith("uint8") for name in formats),
        min_intensity=int(values[0]) + MIN_INTENSITY,
        max_intensity=int(values[-1]) + MIN_INTENSITY,
        low_intensity=low,
        high_intensity=high,
        foreground=_foreground_scaling(counts),
        mask_threshold=sample.encoding.threshold,
        classes=_class_stats(fractions, sample.encoding),
        foreground_slices=sum(sum(each) > 0 for each in fractions) / len(fractions),
        foreground_rows=rows,
        foreground_columns=columns,
        spacing_mm=_median_spacing(records),
        has_class_names=sample.has_class_names,
    )


def select_sample(pairs: Sequence[Pair], max_count: int) -> list[Pair]:
    """At most max_count pairs, evenly spaced in their order, which is that of splits and names."""
    count = min(len(pairs), max_count)
    return [pairs[index * len(pairs) // count] for index in range(count)]


def _recognize_layout(data: Data, storage: Storage) -> str:
    """The layout whose folder of images exists; presplit if none does, which is then an error."""
    if storage.list_objects(f"{data.train_dir}/{data.images_dir}"):
        return "presplit"
    return "unsplit" if storage.list_objects(data.images_dir) else "presplit"


def _pair_slices(data: Data, has_regex: bool, storage: Storage) -> tuple[str, list[Pair]]:
    """The regular expression of the patients, and all pairs with their patients."""
    files = list_files(data, storage)
    if has_regex:
        return data.patient_id_regex, pair_files(files, data, storage)
    # Paired with an expression that fits every name, until the one of the patients is known.
    any_name = data.model_copy(update={"patient_id_regex": "^."})
    pairs = pair_files(files, any_name, storage)
    names: dict[Split | None, list[str]] = {}
    for pair in pairs:
        names.setdefault(pair.split, []).append(pair.name)
    min_patients = 3 if data.layout == "unsplit" and data.test_fraction else 2
    try:
        regex = choose_patient_regex(names, min_patients)
    except DataError as error:
        raise DataError(f"{storage.url}: {error}") from error
    return regex, [
        replace(pair, patient=find_patient(pair.name, regex) or pair.name) for pair in pairs
    ]


def _decode_sample(
    pairs: Sequence[Pair],
    data: Data,
    records: Mapping[str, VolumeRecord],
    storage: Storage,
    on_progress: ProgressCallback,
) -> _Sample:
    """Decode pairs, and recognize what their masks mean unless the settings say so."""
    encoding, thresholds = class_encoding(data), counted_thresholds(data)
    decoded, counter = check_pairs(pairs, storage, encoding, thresholds, on_progress)
    has_names = True
    if encoding is None and data.mask_threshold is not None:
        encoding = threshold_encoding(data.mask_threshold)
    if encoding is None:
        encoding, has_names = _recognize_masks(decoded, records, storage)
        if encoding.threshold is None:
            decoded = _count_classes(decoded, encoding)
    fractions = [class_fractions(each.values, encoding) for each in decoded]
    threshold = equivalent_threshold(encoding.threshold or 0, thresholds)
    return _Sample(decoded, encoding, fractions, counter, threshold, has_names)


def _recognize_masks(
    decoded: Sequence[DecodedPair], records: Mapping[str, VolumeRecord], storage: Storage
) -> tuple[MaskEncoding, bool]:
    """One foreground above a threshold, or a class for each of the values of the masks.

    Also whether the names of the classes are known, from the import of a dataset.
    """
    values = sorted({value for each in decoded for value in each.values if value > 0})
    if not _are_labels(values):
        try:
            threshold = decide_threshold((each.pair.mask, each.values) for each in decoded)
        except DataError as error:
            raise DataError(f"{storage.url}: {error}") from error
        return threshold_encoding(threshold), True
    known = {
        value: name for record in records.values() for value, name in record.label_names.items()
    }
    names = [_class_name(known.get(value), value) for value in values]
    if len(set(names)) < len(names):
        names = [_class_name(None, value) for value in values]
    classes = create_classes(dict(zip(names, values, strict=True)))
    return MaskEncoding(classes), all(value in known for value in values)


def _are_labels(values: Sequence[int]) -> bool:
    """Whether each of the values above 0, from low to high, may be a class."""
    if not 2 <= len(values) <= _MAX_CLASSES:
        return False
    contrast = min(second - first for first, second in pairwise([0, *values]))
    return values[-1] <= max(POSSIBLE_THRESHOLDS) or contrast >= _MIN_CONTRAST


def _class_name(label: str | None, value: int) -> str:
    """The name of a label as data.classes accepts it, or a numbered one."""
    text = "".join(char if char.isascii() and char.isalnum() else "_" for char in label or "")
    text = text.strip("_")[:40]
    usable = text[:1].isalpha() and text not in ("background", "mean")
    return text if usable else f"class_{value}"


def _count_classes(decoded: Sequence[DecodedPair], encoding: MaskEncoding) -> list[DecodedPair]:
    """Pairs whose masks are counted by class index, as if the classes had been known before."""
    indices = {each.value: index for index, each in enumerate(encoding.classes, start=1)}
    return [
        replace(each, values={indices.get(value, 0): n for value, n in each.values.items()})
        for each in decoded
    ]


def _assign_patients(
    pairs: Sequence[Pair], sample: _Sample, data: Data, seed: int
) -> dict[tuple[str, Split | None], Split]:
    """The split of each patient: of its folder, or as an unsplit dataset will be split.

    If only a sample was decoded, a patient of an unsplit dataset may get into another split.
    """
    if data.layout == "presplit":
        return {(pair.patient, pair.split): pair.split for pair in pairs if pair.split}
    fractions: dict[str, list[float]] = {pair.patient: [] for pair in pairs}
    for each, fraction in zip(sample.decoded, sample.fractions, strict=True):
        fractions[each.pair.patient].append(sum(fraction))
    means = {patient: sum(own) / max(1, len(own)) for patient, own in fractions.items()}
    patients = stratified_split(means, data.valid_fraction, data.test_fraction, seed)
    return {(patient, None): split for split in SPLITS for patient in patients[split]}


def _measure_pixels(
    sample: _Sample, storage: Storage
) -> tuple[NDArray[np.int64], Mapping[str, int]]:
    """The histogram of all pixels of some slices, as IntensityHistogram, and their formats."""
    count = min(len(sample.decoded), _MAX_HISTOGRAMS)
    chosen = [index * len(sample.decoded) // count for index in range(count)]
    records = tuple(
        SliceRecord(
            each.pair.name,
            each.pair.patient,
            each.pair.split or "train",
            each.pair.image,
            each.pair.mask,
            each.height,
            each.width,
            sample.fractions[index],
        )
        for index, each in ((index, sample.decoded[index]) for index in chosen)
    )
    dataset = Dataset(storage.url, records, "", sample.encoding)
    histograms, formats = measure_intensities(dataset, storage)
    return np.sum([each.pixels for each in histograms.values()], axis=0), formats


def _find_foreground(
    keys: Sequence[str], encoding: MaskEncoding, storage: Storage
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The first and the last row and column of the foreground of masks, as fractions.

    The masks are decoded a second time: what is foreground is known only after all of them were.
    """

    def find_bounds(key: str) -> NDArray[np.float64]:
        """[2, 2]: rows and columns, each from and to; from 1 to 0 without foreground."""
        mask = encoding.read(storage, key) > 0
        bounds = np.array([[1.0, 0.0], [1.0, 0.0]])
        for axis in (0, 1):
            positions = np.flatnonzero(mask.any(axis=1 - axis))
            if len(positions):
                bounds[axis] = np.array([positions[0], positions[-1] + 1]) / mask.shape[axis]
        return bounds

    with ThreadPoolExecutor(storage.num_readers, thread_name_prefix="masks") as pool:
        bounds = np.stack(list(pool.map(find_bounds, keys)))
    first, last = bounds[:, :, 0].min(axis=0), bounds[:, :, 1].max(axis=0)
    return (float(first[0]), float(last[0])), (float(first[1]), float(last[1]))


def _foreground_scaling(counts: Sequence[tuple[int, int]]) -> IntensityScaling | None:
    try:
        return foreground_scaling(counts)
    except DataError:
        return None


def _class_stats(
    fractions: Sequence[tuple[float, ...]], encoding: MaskEncoding
) -> tuple[ClassStats, ...]:
    stats = []
    for each, column in zip(encoding.classes, np.array(fractions).T, strict=True):
        present = column[column > 0]
        mean = float(present.mean()) if len(present) else 0.0
        value = None if encoding.threshold is not None else each.value
        stats.append(ClassStats(each.name, value, len(present) / len(column), mean))
    return tuple(stats)


def _median_spacing(records: Mapping[str, VolumeRecord]) -> tuple[float, float] | None:
    if not records:
        return None
    rows, columns = (
        statistics.median(record.spacing_mm[axis] for record in records.values()) for axis in (0, 1)
    )
    return rows, columns
