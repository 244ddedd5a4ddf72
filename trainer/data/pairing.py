"""Images and masks of a dataset's folders, paired by their files' stems, and whose they are."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from contract.config import Data
from contract.errors import DataError
from contract.imaging.decode import SUFFIXES
from contract.storage import LocalStorage, ObjectInfo, Storage
from trainer.data.splits import SPLITS, Split, find_patient

_FAULTS_TOLD = 5
_PARTNERS = "an image and its mask have the same stem; add the missing ones or remove the others"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """Two files of one stem; split is None in a pool."""

    name: str
    patient: str
    split: Split | None
    image: str
    mask: str


def list_files(data: Data, source: Storage) -> list[ObjectInfo]:
    """Every file below the folders of the layout."""
    return [entry for folder in _folders(data) for entry in source.list_objects(folder)]


def _folders(data: Data) -> list[str]:
    prefixes = [""] if data.layout == "unsplit" else [f"{split}/" for split in SPLITS]
    return [f"{prefix}{kind}" for prefix in prefixes for kind in ("images", "masks")]


def pair_files(listing: Sequence[ObjectInfo], data: Data, source: Storage) -> list[Pair]:
    """Images and masks by stem; one DataError for all without partner, or without patient."""
    found = _group_by_stem(listing, data, source)
    faults: list[str] = []
    alone: list[str] = []
    nameless: list[str] = []
    pairs: list[Pair] = []
    for split in [None] if data.layout == "unsplit" else SPLITS:
        prefix = "" if split is None else f"{split}/"
        images, masks = found[f"{prefix}images"], found[f"{prefix}masks"]
        faults += _duplicate_stems(images) + _duplicate_stems(masks)
        alone += [f"{images[stem][0]} has no mask" for stem in images.keys() - masks.keys()]
        alone += [f"{masks[stem][0]} has no image" for stem in masks.keys() - images.keys()]
        for stem in sorted(images.keys() & masks.keys()):
            patient = find_patient(stem, data.patient_id_regex)
            if patient is None:
                nameless.append(images[stem][0])
            else:
                pairs.append(Pair(stem, patient, split, images[stem][0], masks[stem][0]))
    raise_data_errors(faults + alone, source, _PARTNERS if alone else "")
    if nameless:
        raise DataError(_no_patient_error(nameless, data, source))
    if data.layout == "unsplit" and len(pairs) > 1:
        _check_patients_differ_from_slices(pairs, data, source)
    return pairs


def _no_patient_error(nameless: Sequence[str], data: Data, source: Storage) -> str:
    """The message for images in whose names the pattern finds nobody."""
    files = f"the names of {len(nameless)} files, such as" if nameless[1:] else "the name of"
    return (
        f"{source.url}: data.patient_id_regex = {_in_toml(data.patient_id_regex)} finds no patient "
        f"in {files} {nameless[0]}: write one that does ('^([^_]+)_' takes what stands before "
        "the first underscore), or rename the files."
    )


def _in_toml(pattern: str) -> str:
    """A pattern as a settings file holds it: in single quotes, where backslashes stay single."""
    plain = "'" not in pattern and pattern.isprintable()
    return f"'{pattern}'" if plain else json.dumps(pattern, ensure_ascii=False)


def _check_patients_differ_from_slices(pairs: Sequence[Pair], data: Data, source: Storage) -> None:
    """DataError where the pattern takes every whole name for a patient.

    Slices of one patient would then stand in several splits, and nothing would tell.
    """
    if all(pair.patient == pair.name for pair in pairs):
        raise DataError(
            f"{source.url}: data.patient_id_regex = {_in_toml(data.patient_id_regex)} takes the "
            f"whole name of every file, such as {pairs[0].name}, for its patient: write one that "
            "stops before the slice, or, where every patient has but one slice, divide them "
            'yourself with data.layout = "presplit".'
        )


def _group_by_stem(
    listing: Sequence[ObjectInfo], data: Data, source: Storage
) -> dict[str, dict[str, list[str]]]:
    """Keys of the pictures of each folder by stem; other files are passed over, and said so."""
    found: dict[str, dict[str, list[str]]] = {folder: {} for folder in _folders(data)}
    passed: list[str] = []
    nested: list[str] = []
    for entry in listing:
        path = PurePosixPath(entry.key)
        if path.suffix.lower() in SUFFIXES and str(path.parent) in found:
            found[str(path.parent)].setdefault(path.stem, []).append(entry.key)
        elif any(part.startswith(".") for part in path.parts):
            continue
        elif path.suffix.lower() in SUFFIXES:
            folder = next(folder for folder in found if path.is_relative_to(folder))
            nested.append(f"{entry.key} lies in a subfolder: move it directly into {folder}")
        else:
            passed.append(entry.key)
    raise_data_errors(nested, source)
    for folder, stems in found.items():
        if not stems and not (folder.endswith("masks") and found[folder[:-5] + "images"]):
            raise DataError(_empty_folder_error(folder, data, source, passed))
    if passed:
        _log.warning(
            "%d files in %s are no pictures and passed over, such as %s",
            len(passed),
            source.url,
            passed[0],
        )
    return found


def _empty_folder_error(folder: str, data: Data, source: Storage, passed: Sequence[str]) -> str:
    """The message for a folder without pictures, with the likeliest cause."""
    wanted = (
        "train|valid|test, each with images and masks"
        if data.layout == "presplit"
        else "images and masks"
    )
    if isinstance(source, LocalStorage) and not source.path.is_dir():
        return f"there is no folder {source.url}: data.root must name one that holds {wanted}."
    text = f"there are no pictures ({', '.join(SUFFIXES)}) in {source.url}/{folder}"
    if passed:
        return f"{text}, but {len(passed)} other files such as {passed[0]}: convert them."
    other = "unsplit" if data.layout == "presplit" else "presplit"
    if any(source.list_objects(f) for f in _folders(data.model_copy(update={"layout": other}))):
        return f'{text}: your folders are those of data.layout = "{other}".'
    return f"{text}: data.root must hold {wanted}."


def _duplicate_stems(stems: Mapping[str, list[str]]) -> list[str]:
    return [f"{' and '.join(keys)} have the same stem" for keys in stems.values() if len(keys) > 1]


def raise_data_errors(faults: Iterable[str], source: Storage, remedy: str = "") -> None:
    """One DataError for all faults, the first few told; nothing where there are none.

    remedy: what the sentence ends with.
    """
    told = sorted(faults)
    if not told:
        return
    end = f": {remedy}." if remedy else "."
    if len(told) == 1:
        raise DataError(f"{source.url}: {told[0]}{end}")
    more = f"; and {len(told) - _FAULTS_TOLD} more" if len(told) > _FAULTS_TOLD else ""
    raise DataError(
        f"{source.url}: {len(told)} files are at fault: {'; '.join(told[:_FAULTS_TOLD])}{more}{end}"
    )
