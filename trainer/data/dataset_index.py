"""The slices of a dataset: image and mask paired, checked, and split by patient.

Everything that training relies on is checked here, before it starts. The result is saved in
<storage.root>/datasets/<id>/index.json and reused as long as the listing of the files is the same;
each fold of a cross-validation has an index of its own there.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from contract.config import Data, Network, Predict
from contract.errors import DataError
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.mask_encoding import MaskEncoding, threshold_encoding
from contract.imaging.mask_values import (
    POSSIBLE_THRESHOLDS,
    decide_threshold,
    equivalent_threshold,
)
from contract.imaging.slice_neighbours import find_neighbours, group_series
from contract.progress import ProgressCallback, no_progress
from contract.storage import ObjectInfo, Storage, open_storage
from trainer.data import splits
from trainer.data.foreground_intensities import IntensityCounts, foreground_scaling
from trainer.data.importers.existing_volumes import check_records
from trainer.data.pair_checks import (
    CheckedPair,
    DecodedPair,
    apply_encoding,
    assign_splits,
    check_pairs,
    check_splits,
    digest_of,
    find_duplicates,
)
from trainer.data.pairing import list_files, pair_files
from trainer.data.splits import SPLITS, Split

__all__ = [
    "SPLITS",
    "Dataset",
    "SliceRecord",
    "Split",
    "check_neighbours",
    "check_tile_sizes",
    "class_encoding",
    "counted_thresholds",
    "dataset_id",
    "find_record_neighbours",
    "find_record_volumes",
    "intensity_scaling",
    "prepare_dataset",
]

# Increased when the content of the index changes, so that older ones are not used.
_FORMAT = 6
_MAX_DUPLICATES = 100
# Fraction of a split's slices, and of their pixels, above which masks may be inverted.
_INVERTED_SLICES, _INVERTED_FOREGROUND = 0.9, 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceRecord:
    """One slice with its mask.

    name: the common stem of the files; image, mask: keys below Dataset.root; height, width: in
    pixels; class_fractions: the fraction of the pixels that each class has.
    """

    name: str
    patient: str
    split: Split
    image: str
    mask: str
    height: int
    width: int
    class_fractions: tuple[float, ...]

    @property
    def foreground(self) -> float:
        """The fraction of the pixels that are foreground of any class."""
        return sum(self.class_fractions)


@dataclass(frozen=True)
class Dataset:
    """All slices, ordered by split and name, below one folder or s3:// address.

    fingerprint: sixteen hex digits derived from names, patients, splits and file contents; the same
    slices have the same fingerprint wherever they are stored.
    """

    root: str
    slices: tuple[SliceRecord, ...]
    fingerprint: str
    masks: MaskEncoding
    """How the masks encode the classes."""
    duplicates: tuple[tuple[str, str], ...] = ()
    """Images with equal pixels in two splits, at most some of them."""
    color_image: str | None = None
    """An image in color, if there is one."""
    foreground_intensities: IntensityCounts = ()
    """The raw intensities of the training foreground, each with its number of pixels."""

    def select(self, split: Split) -> tuple[SliceRecord, ...]:
        """The slices of one split."""
        return tuple(record for record in self.slices if record.split == split)

    def patients(self, split: Split) -> tuple[str, ...]:
        """The patients of one split, sorted by name."""
        return tuple(sorted({record.patient for record in self.select(split)}))


@dataclass(frozen=True)
class Index:
    """The content of an index; stamp: digest of the settings, files and splits it is based on."""

    stamp: str
    dataset: Dataset


def prepare_dataset(
    data: Data, seed: int, storage: Storage, on_progress: ProgressCallback = no_progress
) -> Dataset:
    """The slices that the settings describe, every file checked; the phantom is drawn if needed.

    Args:
        data: The settings [data].
        seed: The seed of the phantom, the splits and the folds if data.seed is absent: run.seed.
        storage: The storage of storage.root, in which the index is saved.
        on_progress: Called after each slice: first when the phantom is drawn, then when slices are
            checked.

    Returns:
        The checked slices.

    Raises:
        DataError: One error that names all faults: a missing partner, an unreadable file, files of
            different sizes, a name without a patient, a patient or an image in two splits, a split
            that is empty (but test) or has no foreground.
    """
    seed = seed if data.seed is None else data.seed
    folder = storage.child(f"datasets/{dataset_id(data, seed)}")
    if data.source == "phantom":
        dataset = _prepare_phantom(data, seed, folder, on_progress)
    else:
        dataset = _load_or_index(data, seed, _open_source(data), folder, on_progress)
    _check_split_overlap(dataset, data)
    _check_duplicates(dataset, data)
    _warn_if_inverted(dataset)
    if not dataset.select("test"):
        _log.info("%s has no test split: the trained network cannot be tested", dataset.root)
    return dataset


def check_tile_sizes(dataset: Dataset, network: Network, predict: Predict) -> None:
    """DataError if training would resize slices and prediction would use their full resolution.

    Training resizes every slice to network.image_size; a sliding window is applied at the original
    resolution, and resizes each window.
    """
    height, width = predict.window_shape(network.image_shape)
    setting = "network.image_size" if predict.window_size is None else "predict.window_size"
    training_slices = (*dataset.select("train"), *dataset.select("valid"))
    for record in training_slices if predict.sliding_window else ():
        if (record.height, record.width) != (height, width):
            raise DataError(
                f"{dataset.root}/{record.image} is {record.width} x {record.height} pixels, but "
                f"with predict.sliding_window = true training slices must have {width} x {height} "
                f"({setting}): crop them to that size, or set predict.sliding_window = false."
            )


def find_record_neighbours(records: Sequence[SliceRecord], neighbours: int) -> NDArray[np.int64]:
    """The stack of each of the slices, as contract.imaging.slice_neighbours describes it."""
    names = [record.name for record in records]
    return find_neighbours(names, neighbours, [record.patient for record in records])


def find_record_volumes(records: Sequence[SliceRecord]) -> list[list[SliceRecord]]:
    """The slices of each volume, from the first to the last.

    Those are the slices of a patient that are of one series (contract.imaging.slice_neighbours) and
    of one size.
    """
    names = [record.name for record in records]
    owners = [f"{each.patient}/{each.height}x{each.width}" for each in records]
    return [[records[index] for index in series] for series in group_series(names, owners)]


def check_neighbours(dataset: Dataset, neighbours: int) -> None:
    """DataError if data.neighbours is set and no training slice has a neighbour of its size."""
    records = dataset.select("train")
    table = find_record_neighbours(records, neighbours)
    for index, other in np.argwhere(table != table[:, neighbours:][:, :1]):
        first, second = records[index], records[table[index, other]]
        if (first.height, first.width) != (second.height, second.width):
            raise DataError(
                f"{dataset.root}/{second.image} is {second.width} x {second.height} pixels, but "
                f"its neighbour {first.image} {first.width} x {first.height}: with data.neighbours "
                f"= {neighbours}, the slices of a series must have one size."
            )
    if neighbours and bool((table == table[:, neighbours:][:, :1]).all()):
        raise DataError(
            f"data.neighbours = {neighbours}, but no training slice of {dataset.root} has a "
            "neighbour: number the slices of a series at the end of their names, such as P1-0007 "
            "and P1-0008, or set data.neighbours = 0."
        )


def intensity_scaling(dataset: Dataset, data: Data) -> IntensityScaling:
    """How a dataset's raw intensities become the input of a network, by data.normalize.

    Raises DataError if it is "foreground" and an image is in color, whose channels have intensities
    of their own, or the training foreground has only one intensity.
    """
    if data.normalize == "window":
        return IntensityScaling.from_window(data.intensity_low, data.intensity_high)
    if dataset.color_image:
        raise DataError(
            f'{dataset.root}/{dataset.color_image} is in color, but data.normalize = "foreground" '
            'needs grey slices: set data.normalize = "window", or save them in grey.'
        )
    try:
        return foreground_scaling(dataset.foreground_intensities)
    except DataError as error:
        raise DataError(
            f'{dataset.root}: {error}, so data.normalize = "foreground" has nothing to scale by: '
            'set data.normalize = "window", or check the masks of the train split.'
        ) from error


def dataset_id(data: Data, seed: int) -> str:
    """The name of a prepared dataset's folder, such as Cropped-Pancreas-1f0c3d2a."""
    if data.source == "phantom":
        from trainer.data.phantom import generator

        identity = {"format": generator.FORMAT, "seed": seed, "phantom": data.phantom.model_dump()}
        return f"phantom-{digest_of(identity)[:8]}"
    identity = {"root": _open_source(data).url, **_dataset_settings(data, seed)}
    name = PurePosixPath(identity["root"]).name
    stem = "".join(char if char.isalnum() or char in "_-" else "-" for char in name)
    return f"{stem.strip('-') or 'slices'}-{digest_of(identity)[:8]}"


def _dataset_settings(data: Data, seed: int) -> dict[str, Any]:
    """The settings that determine which slices a folder contains."""
    settings: dict[str, Any] = {
        "layout": data.layout,
        "directories": _directories(data),
        "mask_pattern": data.mask_pattern,
        "patient_id_regex": data.patient_id_regex,
        "mask_threshold": data.mask_threshold,
        "classes": list(data.classes.items()),
        "class_tolerance": data.class_tolerance,
        "other_values_are_background": data.other_values_are_background,
    }
    if data.layout == "unsplit":
        settings |= {"fractions": [data.valid_fraction, data.test_fraction], "seed": seed}
    return settings


def _directories(data: Data) -> list[str]:
    splits = [data.train_dir, data.valid_dir, data.test_dir] if data.layout == "presplit" else []
    return [*splits, data.images_dir, data.masks_dir]


def _open_source(data: Data) -> Storage:
    assert data.root is not None, "Data requires a root if source is a folder"
    return open_storage(data.root)


def _prepare_phantom(
    data: Data, seed: int, folder: Storage, on_progress: ProgressCallback
) -> Dataset:
    """The slices of the phantom; it is drawn (again) unless all files are there as indexed."""
    from trainer.data.phantom import generator

    if data.folds:
        # Drawn and indexed as it is, before a fold of it is indexed.
        _prepare_phantom(data.model_copy(update={"folds": 0, "fold": 1}), seed, folder, on_progress)
    # Folders and names of the phantom are always the same.
    data = Data(
        source="phantom",
        patient_id_regex=generator.PATIENT_REGEX,
        phantom=data.phantom,
        allow_patient_overlap=data.allow_patient_overlap,
        folds=data.folds,
        fold=data.fold,
    )
    if data.folds:
        return _load_or_index(data, seed, folder, folder, on_progress)
    indexed = _load_index(folder, data, _stamp(data, seed, list_files(data, folder), folder))
    if indexed is not None:
        return indexed
    generator.write_phantom(data.phantom, seed, folder, on_progress)
    return _load_or_index(data, seed, folder, folder, on_progress)


def _load_or_index(
    data: Data, seed: int, source: Storage, folder: Storage, on_progress: ProgressCallback
) -> Dataset:
    """The dataset from the index, or checked now and indexed."""
    files = list_files(data, source)
    check_records(source, (info.key for info in files))
    indexed = _load_index(folder, data, _stamp(data, seed, files, folder))
    if indexed is not None:
        _log.info(
            "%d slices in %s, unchanged since they were checked", len(indexed.slices), indexed.root
        )
        return indexed
    encoding, thresholds = class_encoding(data), counted_thresholds(data)
    decoded, foreground = check_pairs(
        pair_files(files, data, source), source, encoding, thresholds, on_progress
    )
    if encoding is None:
        encoding = threshold_encoding(_choose_threshold(decoded, data, source))
    checked = apply_encoding(decoded, encoding)
    counted = equivalent_threshold(encoding.threshold or 0, thresholds)
    datasets = {}
    # All folds at once, so that the slices are decoded once.
    for fold in range(1, max(1, data.folds) + 1):
        own = data.model_copy(update={"fold": fold})
        assigned = assign_splits(checked, own, seed, folder)
        _check_fold(assigned, encoding, source, own)
        training_pairs = [each.decoded.pair for each in assigned["train"]]
        datasets[fold] = replace(
            _create_dataset(source.url, assigned, encoding),
            foreground_intensities=foreground.total(training_pairs, counted),
        )
        # The stamp of an unsplit dataset includes the splits that were just saved.
        index = Index(_stamp(own, seed, files, folder), datasets[fold])
        folder.write(_index_name(own), TypeAdapter(Index).dump_json(index, indent=1))
    _log.debug("%d slices in %s checked", len(checked), source.url)
    return datasets[data.fold]


def _check_fold(
    assigned: Mapping[Split, Sequence[CheckedPair]],
    encoding: MaskEncoding,
    source: Storage,
    data: Data,
) -> None:
    """DataError, which names the fold if there are any, for splits that cannot be trained on."""
    try:
        check_splits(assigned, encoding, source)
    except DataError as error:
        if not data.folds:
            raise
        raise DataError(
            f"fold {data.fold} of {data.folds}: {error} With fewer folds or another data.seed the "
            "patients are assigned differently."
        ) from error


def _index_name(data: Data) -> str:
    """The file of the index in the folder of the dataset."""
    return f"index-fold-{data.fold}-of-{data.folds}.json" if data.folds else "index.json"


def _load_index(folder: Storage, data: Data, stamp: str) -> Dataset | None:
    """The indexed dataset if the index still has this stamp."""
    name = _index_name(data)
    if not folder.exists(name):
        return None
    try:
        index = TypeAdapter(Index).validate_json(folder.read(name))
    except ValidationError:
        return None
    return index.dataset if index.stamp == stamp else None


def _stamp(data: Data, seed: int, files: Sequence[ObjectInfo], folder: Storage) -> str:
    """Digest of everything an index is based on: settings, files with size and time, splits."""
    return digest_of(
        {
            "format": _FORMAT,
            "settings": _dataset_settings(data, seed),
            "files": [(info.key, info.size, info.modified) for info in files],
            "splits": _read_splits_file(folder) if data.layout == "unsplit" else None,
            "fold": [data.folds, data.fold, seed] if data.folds else None,
        }
    )


def _read_splits_file(folder: Storage) -> str | None:
    if not folder.exists(splits.SPLITS_FILE):
        return None
    return folder.read(splits.SPLITS_FILE).decode()


def class_encoding(data: Data) -> MaskEncoding | None:
    """How the masks encode the classes of data.classes; None without them."""
    if not data.classes:
        return None
    return MaskEncoding(
        data.segmentation_classes,
        tolerance=data.class_tolerance,
        other_is_background=data.other_values_are_background,
    )


def counted_thresholds(data: Data) -> tuple[int, ...]:
    """The values above which the foreground's intensities are counted while masks are decoded."""
    if data.classes:
        return (0,)  # Masks are decoded to class indices.
    return POSSIBLE_THRESHOLDS if data.mask_threshold is None else (data.mask_threshold,)


def _choose_threshold(decoded: Sequence[DecodedPair], data: Data, source: Storage) -> int:
    """data.mask_threshold, or the threshold that the values of the masks suggest."""
    if data.mask_threshold is not None:
        return data.mask_threshold
    try:
        threshold = decide_threshold((each.pair.mask, each.values) for each in decoded)
    except DataError as error:
        raise DataError(f"{source.url}: {error}") from error
    values = sorted({value for each in decoded for value in each.values})
    listed = " and ".join(map(str, values)) if len(values) <= 2 else f"{values[0]} to {values[-1]}"
    _log.info(
        "the masks have the values %s: foreground is above %d (data.mask_threshold)",
        listed,
        threshold,
    )
    return threshold


def _create_dataset(
    root: str, assigned: Mapping[Split, Sequence[CheckedPair]], encoding: MaskEncoding
) -> Dataset:
    records = tuple(
        SliceRecord(
            checked.pair.name,
            checked.pair.patient,
            split,
            checked.pair.image,
            checked.pair.mask,
            checked.decoded.height,
            checked.decoded.width,
            checked.class_fractions,
        )
        for split in SPLITS
        for checked in assigned[split]
    )
    content = [
        (split, checked.pair.name, checked.pair.patient, checked.decoded.digest)
        for split in SPLITS
        for checked in assigned[split]
    ]
    duplicates = tuple(
        (first.pair.image, second.pair.image)
        for first, second in find_duplicates(assigned)[:_MAX_DUPLICATES]
    )
    in_color = [
        each.pair.image for split in SPLITS for each in assigned[split] if each.decoded.is_color
    ]
    fingerprint = digest_of(content)[:16]
    return Dataset(root, records, fingerprint, encoding, duplicates, next(iter(in_color), None))


def _check_split_overlap(dataset: Dataset, data: Data) -> None:
    """DataError (or, if allowed, a warning) for patients that are in several splits."""
    splits_of: dict[str, set[Split]] = defaultdict(set)
    for record in dataset.slices:
        splits_of[record.patient].add(record.split)
    shared = sorted(patient for patient, names in splits_of.items() if len(names) > 1)
    if not shared:
        return
    names = " and ".join(split for split in SPLITS if split in splits_of[shared[0]])
    more = f" (and {len(shared) - 1} more patients)" if shared[1:] else ""
    fault = f"{dataset.root}: patient {shared[0]} is in the splits {names}{more}"
    if not data.allow_patient_overlap:
        raise DataError(
            f"{fault}: move all slices of a patient to one split, or set "
            "data.allow_patient_overlap = true, after which the metrics are not by patient."
        )
    _log.warning("%s; the metrics are not by patient", fault)


def _check_duplicates(dataset: Dataset, data: Data) -> None:
    """DataError (or, if overlap is allowed, a warning) for one image in several splits."""
    if not dataset.duplicates:
        return
    first, second = dataset.duplicates[0]
    count = len(dataset.duplicates) - 1
    more = f" (and {count} more pairs)" if count else ""
    fault = f"{dataset.root}: {first} and {second} have the same pixels{more}"
    if not data.allow_patient_overlap:
        raise DataError(
            f"{fault}, so one patient is probably in two splits under two names: move all slices "
            "of a patient to one split, or set data.allow_patient_overlap = true, after which the "
            "metrics are not by patient."
        )
    _log.warning("%s; the metrics are not by patient", fault)


def _warn_if_inverted(dataset: Dataset) -> None:
    """Warn if the foreground covers most of almost every slice."""
    covered = [record for record in dataset.slices if record.foreground > _INVERTED_FOREGROUND]
    if len(covered) > _INVERTED_SLICES * len(dataset.slices):
        _log.warning(
            "in %d of %d masks of %s, such as %s, the foreground covers more than half of the "
            "slice: the masks may be inverted (foreground must be bright and background 0)",
            len(covered),
            len(dataset.slices),
            dataset.root,
            covered[0].mask,
        )
