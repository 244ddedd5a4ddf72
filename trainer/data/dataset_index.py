"""The cases of a dataset: image and mask paired, checked, and split by patient.

Everything a training relies on is checked here, before it starts; what was found is kept in
<storage.root>/datasets/<name>/index.json and believed as long as the files' listing is the same.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from contract.config import Config, Data
from contract.errors import DataError
from contract.imaging.decode import decode_image, decode_mask, read_image, read_mask
from contract.storage import ObjectInfo, Storage, open_storage
from trainer.data import splits
from trainer.data.pairing import Pair, list_files, pair_files, raise_data_errors
from trainer.data.splits import SPLITS, Split

__all__ = [
    "SPLITS",
    "Dataset",
    "SliceRecord",
    "Split",
    "check_tile_sizes",
    "prepare_dataset",
    "read_image",
    "read_mask",
]

ProgressCallback = Callable[[int, int, str], object]

INDEX = "index.json"

# Raised when what is written to the index changes, so that older ones are not believed.
_FORMAT = 1
_READERS = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceRecord:
    """One slice with its mask.

    name: the files' common stem; image, mask: keys below Dataset.root; height, width: in pixels;
    foreground: fraction of the pixels.
    """

    name: str
    patient: str
    split: Split
    image: str
    mask: str
    height: int
    width: int
    foreground: float


@dataclass(frozen=True)
class Dataset:
    """All cases, ordered by split and name, below one folder or s3:// address.

    fingerprint: sixteen hex digits of names, patients, splits and file contents; the same slices
    have the same one wherever they lie.
    """

    root: str
    slices: tuple[SliceRecord, ...]
    fingerprint: str

    def select(self, split: Split) -> tuple[SliceRecord, ...]:
        """The cases of one split."""
        return tuple(case for case in self.slices if case.split == split)

    def patients(self, split: Split) -> tuple[str, ...]:
        """The patients of one split, by name."""
        return tuple(sorted({case.patient for case in self.select(split)}))


@dataclass(frozen=True)
class Index:
    """What index.json holds; stamp: digest of the settings, listing and splits it was made of."""

    stamp: str
    dataset: Dataset


@dataclass(frozen=True)
class _CheckedPair:
    """A pair whose files were read; peak: the mask's greatest value; digest: of both contents."""

    pair: Pair
    height: int
    width: int
    foreground: float
    peak: int
    digest: str


def no_progress(done: int, total: int, note: str) -> None:
    """For a caller who does not watch."""


def prepare_dataset(
    data: Data, seed: int, storage: Storage, on_progress: ProgressCallback = no_progress
) -> Dataset:
    """The cases that the settings describe, every file checked; the phantom is drawn if need be.

    storage: that of storage.root, where the index is kept; watch: told (slices done, slices in all,
    what is done with them) after each slice, the phantom's first when drawn, then when checked.
    Raises one DataError that names what is wrong and where: a missing partner, an unreadable or
    differently sized file, a name without patient, a patient in two splits, a split that is empty
    or has no foreground.
    """
    place = storage.child(f"datasets/{dataset_id(data, seed)}")
    if data.source == "phantom":
        dataset = _phantom(data, seed, place, on_progress)
    else:
        dataset = _load_or_index(data, seed, _source(data), place, on_progress)
    _check_split_overlap(dataset, data)
    return dataset


def check_tile_sizes(dataset: Dataset, config: Config) -> None:
    """DataError where a tiled network would be trained on shrunken slices and asked of whole ones.

    Training resizes every slice to network.image_size; tiles are cut at the slices' own resolution.
    """
    side = config.network.image_size
    learnt_from = (
        (*dataset.select("train"), *dataset.select("valid"))
        if config.predict.sliding_window
        else ()
    )
    for case in learnt_from:
        if (case.height, case.width) != (side, side):
            raise DataError(
                f"{dataset.root}/{case.image} is {case.width} x {case.height} pixels, but with "
                f"predict.sliding_window = true slices that train must have network.image_size = {side}: "
                "cut them to that size, or set predict.sliding_window = false."
            )


def dataset_id(data: Data, seed: int) -> str:
    """The name of a prepared dataset's folder, such as Cropped-Pancreas-1f0c3d2a."""
    if data.source == "phantom":
        from trainer.data.phantom import generator

        facts = {"format": generator.FORMAT, "seed": seed, "phantom": data.phantom.model_dump()}
        return f"phantom-{_digest(facts)[:8]}"
    facts = {"root": _source(data).url, **_dataset_settings(data, seed)}
    stem = "".join(
        c if c.isalnum() or c in "_-" else "-" for c in PurePosixPath(facts["root"]).name
    )
    return f"{stem.strip('-') or 'slices'}-{_digest(facts)[:8]}"


def _dataset_settings(data: Data, seed: int) -> dict[str, Any]:
    """The settings that decide which cases a folder of slices gives."""
    facts: dict[str, Any] = {
        "layout": data.layout,
        "patient_id_regex": data.patient_id_regex,
        "mask_threshold": data.mask_threshold,
    }
    if data.layout == "unsplit":
        facts |= {"fractions": [data.valid_fraction, data.test_fraction], "seed": seed}
    return facts


def _source(data: Data) -> Storage:
    assert data.root is not None, "Data refuses a folder without root"
    return open_storage(data.root)


def _phantom(data: Data, seed: int, place: Storage, watch: ProgressCallback) -> Dataset:
    """The phantom's cases; it is drawn (again) unless all of it lies there as indexed."""
    from trainer.data.phantom import generator

    data = data.model_copy(update={"layout": "presplit", "patient_id_regex": generator.PATTERN})
    known = _load_index(place, _stamp(data, seed, list_files(data, place), place))
    if known is not None:
        return known
    generator.write_phantom(
        data.phantom, seed, place, lambda done, total: watch(done, total, "drawn")
    )
    return _load_or_index(data, seed, place, place, watch)


# -- the index ---------------------------------------------------------------------------------


def _load_or_index(
    data: Data, seed: int, source: Storage, place: Storage, watch: ProgressCallback
) -> Dataset:
    """The dataset from the index, or checked now and indexed."""
    listing = list_files(data, source)
    known = _load_index(place, _stamp(data, seed, listing, place))
    if known is not None:
        _log.info(
            "%d slices in %s, unchanged since they were checked", len(known.slices), known.root
        )
        return known
    read = _check_pairs(pair_files(listing, data, source), data, source, watch)
    assigned = _assign_splits(read, data, seed, place)
    _check_splits(assigned, data, source)
    dataset = _dataset(source.url, assigned)
    # Only now: the stamp of a pool is that of the splits just written, too.
    index = Index(_stamp(data, seed, listing, place), dataset)
    place.write(INDEX, TypeAdapter(Index).dump_json(index, indent=1))
    _log.debug("%d slices in %s checked", len(dataset.slices), dataset.root)
    return dataset


def _load_index(place: Storage, stamp: str) -> Dataset | None:
    """The indexed dataset if it is still the one described by the stamp."""
    if not place.exists(INDEX):
        return None
    try:
        index = TypeAdapter(Index).validate_json(place.read(INDEX))
    except ValidationError:
        return None
    return index.dataset if index.stamp == stamp else None


def _stamp(data: Data, seed: int, listing: Sequence[ObjectInfo], place: Storage) -> str:
    """Digest of all that decides an index: settings, files with size and time, and the splits."""
    facts = {
        "format": _FORMAT,
        "settings": _dataset_settings(data, seed),
        "listing": [(entry.key, entry.size, entry.modified) for entry in listing],
        "splits": _splits_text(place) if data.layout == "unsplit" else None,
    }
    return _digest(facts)


def _splits_text(place: Storage) -> str | None:
    return place.read(splits.FILE).decode() if place.exists(splits.FILE) else None


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# -- from pairs to cases -----------------------------------------------------------------------


def _check_pairs(
    pairs: Sequence[Pair], data: Data, source: Storage, watch: ProgressCallback
) -> list[_CheckedPair]:
    """Every pair decoded once; one DataError for all that cannot be used."""
    read: list[_CheckedPair] = []
    faults: list[str] = []
    with ThreadPoolExecutor(_READERS, thread_name_prefix="slices") as pool:
        results = pool.map(partial(_check_pair, source=source, data=data), pairs)
        for done, result in enumerate(results, start=1):
            if isinstance(result, _CheckedPair):
                read.append(result)
            else:
                faults.append(result)
            watch(done, len(pairs), "checked")
    raise_data_errors(faults, source)
    return read


def _check_pair(pair: Pair, source: Storage, data: Data) -> _CheckedPair | str:
    """A pair's facts, or what is wrong with it."""
    image_file, mask_file = source.read(pair.image), source.read(pair.mask)
    try:
        image, mask = decode_image(image_file, pair.image), decode_mask(mask_file, pair.mask)
    except DataError as error:
        return str(error).removesuffix(".")
    if image.shape[:2] != mask.shape:
        return f"{pair.image} is {_size(image)} pixels, but {pair.mask} is {_size(mask)}"
    return _CheckedPair(
        pair,
        *mask.shape,
        foreground=int((mask > data.mask_threshold).sum()) / mask.size,
        peak=int(mask.max()),
        digest=hashlib.sha256(
            hashlib.sha256(image_file).digest() + hashlib.sha256(mask_file).digest()
        ).hexdigest(),
    )


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def _assign_splits(
    read: Sequence[_CheckedPair], data: Data, seed: int, place: Storage
) -> dict[Split, list[_CheckedPair]]:
    """The slices of each split: by folder, or by patient in a pool."""
    if data.layout == "unsplit":
        fractions: dict[str, list[float]] = defaultdict(list)
        for each in read:
            fractions[each.pair.patient].append(each.foreground)
        means = {patient: sum(values) / len(values) for patient, values in fractions.items()}
        patients = splits.load_or_create_splits(means, data, seed, place)
        home = {patient: split for split in SPLITS for patient in patients[split]}
        read = [replace(s, pair=replace(s.pair, split=home[s.pair.patient])) for s in read]
    return {split: [each for each in read if each.pair.split == split] for split in SPLITS}


def _check_splits(
    assigned: Mapping[Split, Sequence[_CheckedPair]], data: Data, source: Storage
) -> None:
    """DataError for a split without slices, or none of whose masks holds foreground."""
    for split, slices in assigned.items():
        if not slices:
            raise DataError(
                f"{source.url}: the {split} split has no slices; give it some patients."
            )
        peak = max(each.peak for each in slices)
        if peak <= data.mask_threshold:
            raise DataError(
                f"{source.url}: none of the {len(slices)} masks of the {split} split "
                f"({slices[0].pair.mask}, …) holds foreground; their greatest value is {peak}, and "
                f"foreground is above data.mask_threshold = {data.mask_threshold}."
            )


def _dataset(root: str, assigned: Mapping[Split, Sequence[_CheckedPair]]) -> Dataset:
    cases = tuple(
        SliceRecord(
            each.pair.name,
            each.pair.patient,
            split,
            each.pair.image,
            each.pair.mask,
            each.height,
            each.width,
            each.foreground,
        )
        for split in SPLITS
        for each in assigned[split]
    )
    content = [
        (split, each.pair.name, each.pair.patient, each.digest)
        for split in SPLITS
        for each in assigned[split]
    ]
    return Dataset(root, cases, _digest(content)[:16])


def _check_split_overlap(dataset: Dataset, data: Data) -> None:
    """DataError (or, where allowed, a warning) for patients who stand in several splits."""
    homes: dict[str, set[Split]] = defaultdict(set)
    for case in dataset.slices:
        homes[case.patient].add(case.split)
    torn = sorted(patient for patient, found in homes.items() if len(found) > 1)
    if not torn:
        return
    names = " and ".join(split for split in SPLITS if split in homes[torn[0]])
    more = f" (and {len(torn) - 1} more patients in several)" if torn[1:] else ""
    fault = f"{dataset.root}: patient {torn[0]} stands in {names}{more}"
    if not data.allow_patient_overlap:
        raise DataError(
            f"{fault}: move all slices of a patient to one split, or set "
            "data.allow_patient_overlap = true and distrust the figures."
        )
    _log.warning("%s; the figures are not by patient", fault)
