"""Images and masks in the folders of a dataset, paired by file stem, with their patients."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from contract.config import Data
from contract.errors import DataError
from contract.imaging.decode import IMAGE_SUFFIXES
from contract.storage import LocalStorage, ObjectInfo, Storage
from trainer.data.splits import SPLITS, Split, find_patient

_MAX_LISTED = 5
_PAIRING_HINT = (
    "an image and its mask have the same stem; add the missing files or remove the others"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """An image and a mask with the same stem; split is None in an unsplit dataset."""

    name: str
    patient: str
    split: Split | None
    image: str
    mask: str


def list_files(data: Data, storage: Storage) -> list[ObjectInfo]:
    """Every file below the folders of the layout."""
    return [info for folder in _layout_folders(data) for info in storage.list_objects(folder)]


def _layout_folders(data: Data) -> list[str]:
    prefixes = [""] if data.layout == "unsplit" else [f"{split}/" for split in SPLITS]
    return [f"{prefix}{kind}" for prefix in prefixes for kind in ("images", "masks")]


def pair_files(files: Sequence[ObjectInfo], data: Data, storage: Storage) -> list[Pair]:
    """Images and masks by stem.

    Raises one DataError for all files without a partner, or without a patient in their name.
    """
    grouped = _group_by_stem(files, data, storage)
    errors: list[str] = []
    unpaired: list[str] = []
    without_patient: list[str] = []
    pairs: list[Pair] = []
    for split in [None] if data.layout == "unsplit" else SPLITS:
        prefix = "" if split is None else f"{split}/"
        images, masks = grouped[f"{prefix}images"], grouped[f"{prefix}masks"]
        errors += _duplicate_stems(images) + _duplicate_stems(masks)
        unpaired += [f"{images[stem][0]} has no mask" for stem in images.keys() - masks.keys()]
        unpaired += [f"{masks[stem][0]} has no image" for stem in masks.keys() - images.keys()]
        for stem in sorted(images.keys() & masks.keys()):
            patient = find_patient(stem, data.patient_id_regex)
            if patient is None:
                without_patient.append(images[stem][0])
            else:
                pairs.append(Pair(stem, patient, split, images[stem][0], masks[stem][0]))
    raise_data_errors(errors + unpaired, storage, _PAIRING_HINT if unpaired else "")
    if without_patient:
        raise DataError(_no_patient_error(without_patient, data, storage))
    if data.layout == "unsplit" and len(pairs) > 1:
        _check_patients_differ_from_slices(pairs, data, storage)
    return pairs


def _no_patient_error(keys: Sequence[str], data: Data, storage: Storage) -> str:
    """The message for images in whose names the regular expression finds no patient."""
    names = f"the names of {len(keys)} files, such as" if keys[1:] else "the name of"
    return (
        f"{storage.url}: data.patient_id_regex = {_as_toml(data.patient_id_regex)} finds no "
        f"patient in {names} {keys[0]}: change it ('^([^_]+)_' takes everything before the first "
        "underscore), or rename the files."
    )


def _as_toml(pattern: str) -> str:
    """A pattern as in a settings file: in single quotes, in which backslashes are literal."""
    is_literal = "'" not in pattern and pattern.isprintable()
    return f"'{pattern}'" if is_literal else json.dumps(pattern, ensure_ascii=False)


def _check_patients_differ_from_slices(pairs: Sequence[Pair], data: Data, storage: Storage) -> None:
    """DataError if the regular expression takes every complete name for a patient.

    Slices of one patient would then be assigned to several splits without any error.
    """
    if all(pair.patient == pair.name for pair in pairs):
        raise DataError(
            f"{storage.url}: data.patient_id_regex = {_as_toml(data.patient_id_regex)} takes the "
            f"complete name of every file, such as {pairs[0].name}, for its patient: change it so "
            "that it stops before the slice, or, if every patient has only one slice, split them "
            'yourself with data.layout = "presplit".'
        )


def _group_by_stem(
    files: Sequence[ObjectInfo], data: Data, storage: Storage
) -> dict[str, dict[str, list[str]]]:
    """Keys of the image files of each folder by stem; other files are skipped with a warning."""
    grouped: dict[str, dict[str, list[str]]] = {folder: {} for folder in _layout_folders(data)}
    skipped: list[str] = []
    nested: list[str] = []
    for info in files:
        path = PurePosixPath(info.key)
        is_image = path.suffix.lower() in IMAGE_SUFFIXES
        if is_image and str(path.parent) in grouped:
            grouped[str(path.parent)].setdefault(path.stem, []).append(info.key)
        elif any(part.startswith(".") for part in path.parts):
            continue
        elif is_image:
            folder = next(folder for folder in grouped if path.is_relative_to(folder))
            nested.append(f"{info.key} is in a subfolder: move it directly into {folder}")
        else:
            skipped.append(info.key)
    raise_data_errors(nested, storage)
    for folder, stems in grouped.items():
        if not stems and not (folder.endswith("masks") and grouped[folder[:-5] + "images"]):
            raise DataError(_empty_folder_error(folder, data, storage, skipped))
    if skipped:
        _log.warning(
            "%d files in %s are not image files and are skipped, such as %s",
            len(skipped),
            storage.url,
            skipped[0],
        )
    return grouped


def _empty_folder_error(folder: str, data: Data, storage: Storage, skipped: Sequence[str]) -> str:
    """The message for a folder without images, with the most likely cause."""
    expected = (
        "train|valid|test, each with images and masks"
        if data.layout == "presplit"
        else "images and masks"
    )
    if isinstance(storage, LocalStorage) and not storage.path.is_dir():
        return f"there is no folder {storage.url}: data.root must contain {expected}."
    text = f"there are no images ({', '.join(IMAGE_SUFFIXES)}) in {storage.url}/{folder}"
    if skipped:
        return f"{text}, but {len(skipped)} other files such as {skipped[0]}: convert them."
    other = "unsplit" if data.layout == "presplit" else "presplit"
    other_folders = _layout_folders(data.model_copy(update={"layout": other}))
    if any(storage.list_objects(other_folder) for other_folder in other_folders):
        return f'{text}: your folders are those of data.layout = "{other}".'
    return f"{text}: data.root must contain {expected}."


def _duplicate_stems(stems: Mapping[str, list[str]]) -> list[str]:
    return [f"{' and '.join(keys)} have the same stem" for keys in stems.values() if len(keys) > 1]


def raise_data_errors(errors: Iterable[str], storage: Storage, hint: str = "") -> None:
    """Raise one DataError for all errors, listing the first few; do nothing if there are none.

    hint: the remedy at the end of the sentence.
    """
    listed = sorted(errors)
    if not listed:
        return
    end = f": {hint}." if hint else "."
    if len(listed) == 1:
        raise DataError(f"{storage.url}: {listed[0]}{end}")
    more = f"; and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    raise DataError(
        f"{storage.url}: {len(listed)} files are invalid: {'; '.join(listed[:_MAX_LISTED])}"
        f"{more}{end}"
    )
