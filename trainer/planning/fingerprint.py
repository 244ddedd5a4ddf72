"""The fingerprint of a dataset: what the choice of settings depends on.

Files are paired, decoded and checked as `segfleet prepare` does it; of large datasets, an evenly
spaced sample. Nothing is written.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from contract.config import Data
from contract.errors import DataError
from contract.imaging.file_names import is_hidden, is_image_file, normalized_stem
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.mask_encoding import MaskEncoding, threshold_encoding
from contract.imaging.mask_values import (
    POSSIBLE_THRESHOLDS,
    decide_threshold,
    equivalent_threshold,
)
from contract.imaging.segmentation_class import Color
from contract.progress import ProgressCallback, no_progress
from contract.storage import ObjectInfo, Storage
from trainer.data.dataset_index import Dataset, SliceRecord
from trainer.data.dataset_stats import MIN_INTENSITY, IntensityHistogram, measure_intensities
from trainer.data.foreground_intensities import (
    HIGH_PERCENTILE,
    LOW_PERCENTILE,
    find_percentile,
    foreground_scaling,
)
from trainer.data.importers.dataset_import import read_volume_records
from trainer.data.importers.slice_files import VolumeRecord
from trainer.data.pair_checks import DecodedPair, check_pairs, class_fractions
from trainer.data.pairing import Pair, list_files, pair_files
from trainer.data.splits import SPLITS, Split, stratified_split
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
    spacing_mm: tuple[float, float] | None = None
    """Median distance of rows and of columns, if the dataset was imported."""
    has_class_names: bool = True
    """Whether the names of the classes are those of the settings or of the import."""


def measure_fingerprint(
    data: Data,
    given: frozenset[str],
    seed: int,
    storage: Storage,
    on_progress: ProgressCallback = no_progress,
) -> tuple[Data, DatasetFingerprint]:
    """Look at a dataset.

    Args:
        data: The settings [data], as far as they are given.
        given: The names of those that are given; layout, patient_id_regex, mask_threshold and
            classes are recognized otherwise.
        seed: The seed by which an unsplit dataset will be split.
        storage: The folder of the dataset.
        on_progress: Called after each slice.

    Returns:
        The settings with those that were recognized, and the fingerprint.

    Raises:
        DataError: There are no slices or masks, a decoded file cannot be used, or patients or
            foreground cannot be recognized.
    """
    data = data.model_copy(update=_recognize_layout(data, given, storage))
    files = list_files(data, storage)
    if "patient_id_regex" not in given:
        regex = _recognize_patients(files, data, storage)
        data = data.model_copy(update={"patient_id_regex": regex})
    pairs = pair_files(files, data, storage)
    sample = select_sample(pairs, MAX_DECODED)
    records = read_volume_records(storage)
    encoding = _given_encoding(data)
    if encoding:
        thresholds = (0,)
    else:
        thresholds = POSSIBLE_THRESHOLDS if data.mask_threshold is None else (data.mask_threshold,)
    decoded, counter = check_pairs(sample, storage, encoding, thresholds, on_progress)
    has_class_names = True
    if encoding is None and data.mask_threshold is None:
        data, has_class_names = _recognize_masks(decoded, data, records, storage)
        if data.classes:
            decoded = _count_classes(decoded, data)
    encoding = _given_encoding(data) or threshold_encoding(data.mask_threshold or 0)
    fractions = [class_fractions(each.values, encoding) for each in decoded]
    split_of = _assign_patients(pairs, decoded, fractions, data, seed)
    pairs = [replace(pair, split=split_of[pair]) for pair in pairs]
    training = [index for index, each in enumerate(decoded) if split_of[each.pair] == "train"]
    if not training or not any(sum(fractions[index]) for index in training):
        raise DataError(
            f"{storage.url}: none of {len(training)} masks of the train split has foreground: "
            "check the masks, or set data.mask_threshold or data.classes."
        )
    counted = equivalent_threshold(encoding.threshold or 0, thresholds)
    counts = counter.total([decoded[index].pair for index in training], counted)
    histogram, formats = _measure_all(decoded, fractions, split_of, encoding, storage)
    values = np.flatnonzero(histogram.pixels)
    low, high = (
        find_percentile(values + MIN_INTENSITY, histogram.pixels[values], percentile)
        for percentile in (LOW_PERCENTILE, HIGH_PERCENTILE)
    )
    return data, DatasetFingerprint(
        layout=data.layout,
        patient_id_regex=data.patient_id_regex,
        example=(pairs[0].name, pairs[0].patient),
        slices={split: sum(pair.split == split for pair in pairs) for split in SPLITS},
        patients={
            split: len({pair.patient for pair in pairs if pair.split == split}) for split in SPLITS
        },
        decoded=len(decoded),
        height=round(statistics.median(each.height for each in decoded)),
        width=round(statistics.median(each.width for each in decoded)),
        max_height=max(each.height for each in decoded),
        max_width=max(each.width for each in decoded),
        is_color=any(each.is_color for each in decoded),
        is_8_bit=all(name.endswith("uint8") for name in formats),
        min_intensity=int(values[0]) + MIN_INTENSITY,
        max_intensity=int(values[-1]) + MIN_INTENSITY,
        low_intensity=low,
        high_intensity=high,
        foreground=_foreground_scaling(counts),
        mask_threshold=encoding.threshold,
        classes=_class_stats([fractions[index] for index in training], encoding),
        foreground_slices=sum(sum(fractions[index]) > 0 for index in training) / len(training),
        spacing_mm=_median_spacing(records),
        has_class_names=has_class_names,
    )


def select_sample(pairs: Sequence[Pair], max_count: int) -> list[Pair]:
    """At most max_count pairs, evenly spaced in their order, which is that of splits and names."""
    count = min(len(pairs), max_count)
    return [pairs[index * len(pairs) // count] for index in range(count)]


def _recognize_layout(data: Data, given: frozenset[str], storage: Storage) -> dict[str, str]:
    """The layout whose folder of images exists; presplit if none does, which is then an error."""
    if "layout" in given or storage.list_objects(f"{data.train_dir}/{data.images_dir}"):
        return {}
    is_unsplit = bool(storage.list_objects(data.images_dir))
    return {"layout": "unsplit" if is_unsplit else "presplit"}


def _recognize_patients(files: Sequence[ObjectInfo], data: Data, storage: Storage) -> str:
    """The regular expression of the patients, from the names of the images."""
    directories: dict[Split | None, str] = {
        "train": f"{data.train_dir}/",
        "valid": f"{data.valid_dir}/",
        "test": f"{data.test_dir}/",
    }
    if data.layout == "unsplit":
        directories = {None: ""}
    names: dict[Split | None, list[str]] = {split: [] for split in directories}
    for split, directory in directories.items():
        folder = f"{directory}{data.images_dir}/"
        for key in (info.key for info in files if info.key.startswith(folder)):
            if is_image_file(key) and not is_hidden(key):
                names[split].append(normalized_stem(key.rpartition("/")[2]))
    if not any(names.values()):
        # Without images; pair_files says what is missing.
        return data.patient_id_regex
    min_patients = 3 if data.layout == "unsplit" and data.test_fraction else 2
    try:
        return choose_patient_regex(names, min_patients)
    except DataError as error:
        raise DataError(f"{storage.url}: {error}") from error


def _given_encoding(data: Data) -> MaskEncoding | None:
    """How the masks encode data.classes; None without them."""
    if not data.classes:
        return None
    return MaskEncoding(
        data.segmentation_classes,
        tolerance=data.class_tolerance,
        other_is_background=data.other_values_are_background,
    )


def _recognize_masks(
    decoded: Sequence[DecodedPair],
    data: Data,
    records: Mapping[str, VolumeRecord],
    storage: Storage,
) -> tuple[Data, bool]:
    """The settings with a threshold, or with a class for each of the values of the masks.

    Also whether the names of the classes are known.
    """
    values = sorted({value for each in decoded for value in each.values if value > 0})
    if not _are_labels(values):
        try:
            threshold = decide_threshold((each.pair.mask, each.values) for each in decoded)
        except DataError as error:
            raise DataError(f"{storage.url}: {error}") from error
        return data.model_copy(update={"mask_threshold": threshold}), True
    known = {
        value: name for record in records.values() for value, name in record.label_names.items()
    }
    names = {value: _class_name(known.get(value), value) for value in values}
    if len(set(names.values())) < len(names):
        names = {value: _class_name(None, value) for value in values}
    classes = {name: value for value, name in names.items()}
    changed = Data.model_validate({**data.model_dump(), "classes": classes})
    return changed, all(value in known for value in values)


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


def _count_classes(decoded: Sequence[DecodedPair], data: Data) -> list[DecodedPair]:
    """Pairs whose masks are counted by class index, as if the classes had been known before."""
    indices = {value: index for index, value in enumerate(data.classes.values(), start=1)}
    return [
        replace(
            each,
            values={
                indices.get(value, 0) if value else 0: count for value, count in each.values.items()
            },
        )
        for each in decoded
    ]


def _assign_patients(
    pairs: Sequence[Pair],
    decoded: Sequence[DecodedPair],
    fractions: Sequence[tuple[float, ...]],
    data: Data,
    seed: int,
) -> dict[Pair, Split]:
    """The split of each pair: of its folder, or as an unsplit dataset will be split.

    If only a sample was decoded, the split of a patient may become another one.
    """
    if data.layout == "presplit":
        return {pair: pair.split for pair in pairs if pair.split}
    counts = Counter[str]()
    foreground: dict[str, float] = {pair.patient: 0.0 for pair in pairs}
    for each, fraction in zip(decoded, fractions, strict=True):
        counts[each.pair.patient] += 1
        foreground[each.pair.patient] += sum(fraction)
    means = {patient: total / max(1, counts[patient]) for patient, total in foreground.items()}
    patients = stratified_split(means, data.valid_fraction, data.test_fraction, seed)
    split_of: dict[str, Split] = {patient: split for split in SPLITS for patient in patients[split]}
    return {pair: split_of[pair.patient] for pair in pairs}


def _measure_all(
    decoded: Sequence[DecodedPair],
    fractions: Sequence[tuple[float, ...]],
    split_of: Mapping[Pair, Split],
    encoding: MaskEncoding,
    storage: Storage,
) -> tuple[IntensityHistogram, Mapping[str, int]]:
    """The intensities of all pixels of some slices, and the formats of these slices."""
    records = [
        SliceRecord(
            each.pair.name,
            each.pair.patient,
            split_of[each.pair],
            each.pair.image,
            each.pair.mask,
            each.height,
            each.width,
            fraction,
        )
        for each, fraction in zip(decoded, fractions, strict=True)
    ]
    count = min(len(records), _MAX_HISTOGRAMS)
    chosen = tuple(records[index * len(records) // count] for index in range(count))
    histograms, formats = measure_intensities(Dataset(storage.url, chosen, "", encoding), storage)
    total = sum(each.pixels for each in histograms.values())
    return IntensityHistogram(pixels=np.asarray(total)), formats


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
