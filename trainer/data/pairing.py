"""Images and masks in the folders of a dataset, paired by name, with their patients."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from contract.config import Data
from contract.errors import DataError
from contract.imaging.file_names import (
    IMAGE_SUFFIXES,
    is_hidden,
    is_image_file,
    normalized_stem,
)
from contract.storage import LocalStorage, ObjectInfo, Storage
from trainer.data.splits import SPLITS, Split, find_patient

_MAX_LISTED = 5
_MAX_FOLDERS = 8
_Kind = Literal["images", "masks"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """An image and its mask; name: stem of the image; split is None in an unsplit dataset."""

    name: str
    patient: str
    split: Split | None
    image: str
    mask: str


@dataclass(frozen=True)
class _Folder:
    """A folder of the layout, relative to the root; split is None in an unsplit dataset."""

    split: Split | None
    kind: _Kind
    path: str


def list_files(data: Data, storage: Storage) -> list[ObjectInfo]:
    """Every file below the folders of the layout."""
    return [info for folder in _layout_folders(data) for info in storage.list_objects(folder.path)]


def _layout_folders(data: Data) -> list[_Folder]:
    directories: dict[Split | None, str] = (
        {None: ""}
        if data.layout == "unsplit"
        else {
            "train": f"{data.train_dir}/",
            "valid": f"{data.valid_dir}/",
            "test": f"{data.test_dir}/",
        }
    )
    kinds: dict[_Kind, str] = {"images": data.images_dir, "masks": data.masks_dir}
    return [
        _Folder(split, kind, prefix + name)
        for split, prefix in directories.items()
        for kind, name in kinds.items()
    ]


def pair_files(files: Sequence[ObjectInfo], data: Data, storage: Storage) -> list[Pair]:
    """Images and masks by the name of the image.

    Raises one DataError for all files without a partner, or without a patient in their name.
    """
    grouped = _group_by_name(files, data, storage)
    errors: list[str] = []
    unpaired: list[str] = []
    without_patient: list[str] = []
    pairs: list[Pair] = []
    for split in [None] if data.layout == "unsplit" else SPLITS:
        images, masks = grouped[split, "images"], grouped[split, "masks"]
        errors += _duplicate_names(images) + _duplicate_names(masks)
        unpaired += [f"{images[name][0]} has no mask" for name in images.keys() - masks.keys()]
        unpaired += [f"{masks[name][0]} has no image" for name in masks.keys() - images.keys()]
        for name in sorted(images.keys() & masks.keys()):
            patient = find_patient(name, data.patient_id_regex)
            if patient is None:
                without_patient.append(images[name][0])
            else:
                pairs.append(Pair(name, patient, split, images[name][0], masks[name][0]))
    raise_data_errors(errors + unpaired, storage, _pairing_hint(data) if unpaired else "")
    if without_patient:
        raise DataError(_no_patient_error(without_patient, data, storage))
    if data.layout == "unsplit" and len(pairs) > 1:
        _check_patients_differ_from_slices(pairs, data, storage)
    return pairs


def _pairing_hint(data: Data) -> str:
    rule = (
        "an image and its mask have the same stem"
        if data.mask_pattern == "{name}"
        else f'a mask is named data.mask_pattern = "{data.mask_pattern}"'
    )
    return f"{rule}; add the missing files, remove the others, or set data.mask_pattern"


def _image_name_of(mask_stem: str, pattern: str) -> str | None:
    """The name of the image of a mask; None if the mask is not named like the pattern."""
    prefix, _, suffix = pattern.partition("{name}")
    is_named = mask_stem.startswith(prefix) and mask_stem.endswith(suffix)
    name = mask_stem[len(prefix) : len(mask_stem) - len(suffix)]
    return name if is_named and name else None


def _no_patient_error(keys: Sequence[str], data: Data, storage: Storage) -> str:
    """The message for images in whose names the regular expression finds no patient."""
    names = f"the names of {len(keys)} files, such as" if keys[1:] else "the name of"
    regex = _quote_toml_string(data.patient_id_regex)
    return (
        f"{storage.url}: data.patient_id_regex = {regex} finds no patient in {names} {keys[0]}: "
        "change it ('^([^_]+)_' takes everything before the first underscore), or rename the files."
    )


def _quote_toml_string(pattern: str) -> str:
    """A pattern as in a settings file: in single quotes, in which backslashes are literal."""
    is_literal = "'" not in pattern and pattern.isprintable()
    return f"'{pattern}'" if is_literal else json.dumps(pattern, ensure_ascii=False)


def _check_patients_differ_from_slices(pairs: Sequence[Pair], data: Data, storage: Storage) -> None:
    """DataError if the regular expression takes every complete name for a patient.

    Slices of one patient would then be assigned to several splits without any error.
    """
    if all(pair.patient == pair.name for pair in pairs):
        regex = _quote_toml_string(data.patient_id_regex)
        raise DataError(
            f"{storage.url}: data.patient_id_regex = {regex} matches the complete name of every "
            f"file, such as {pairs[0].name}: change it so that it stops before the slice, or, if "
            "every patient has only one slice, split them yourself with "
            'data.layout = "presplit".'
        )


def _group_by_name(
    files: Sequence[ObjectInfo], data: Data, storage: Storage
) -> dict[tuple[Split | None, _Kind], dict[str, list[str]]]:
    """Keys of the image files of each folder by the name of the image.

    Hidden files, and files that are not images, are skipped with a message.
    """
    folders = {folder.path: folder for folder in _layout_folders(data)}
    grouped: dict[tuple[Split | None, _Kind], dict[str, list[str]]] = {
        (folder.split, folder.kind): {} for folder in folders.values()
    }
    skipped: list[str] = []
    hidden: list[str] = []
    errors: list[str] = []
    for key in (info.key for info in files):
        folder = folders.get(str(PurePosixPath(key).parent))
        if is_hidden(key):
            hidden += [key] if is_image_file(key) else []
        elif not is_image_file(key):
            skipped.append(key)
        elif folder is None:
            parent = next(path for path in folders if PurePosixPath(key).is_relative_to(path))
            errors.append(f"{key} is in a subfolder: move it directly into {parent}")
        else:
            stem = normalized_stem(PurePosixPath(key).name)
            is_mask = folder.kind == "masks"
            name = _image_name_of(stem, data.mask_pattern) if is_mask else stem
            # A mask that is not named like the pattern is reported as one without an image.
            grouped[folder.split, folder.kind].setdefault(name or stem, []).append(key)
    raise_data_errors(errors, storage)
    _log_skipped(skipped, hidden, storage)
    for folder in folders.values():
        images, masks = grouped[folder.split, "images"], grouped[folder.split, "masks"]
        is_optional = folder.split == "test" and not images and not masks
        # If there are only images, pair_files names those without a mask.
        only_images = folder.kind == "masks" and images
        if not grouped[folder.split, folder.kind] and not is_optional and not only_images:
            raise DataError(_empty_folder_error(folder, data, storage, skipped))
    return grouped


def _log_skipped(skipped: Sequence[str], hidden: Sequence[str], storage: Storage) -> None:
    if skipped:
        _log.warning(
            "%d files in %s are not image files and are skipped, such as %s",
            len(skipped),
            storage.url,
            skipped[0],
        )
    if hidden:
        _log.info(
            "%d hidden files in %s are ignored, such as %s", len(hidden), storage.url, hidden[0]
        )


def _empty_folder_error(
    folder: _Folder, data: Data, storage: Storage, skipped: Sequence[str]
) -> str:
    """The message for a folder without images, with the most likely cause."""
    names = f"{data.images_dir} and {data.masks_dir}"
    splits = f"{data.train_dir}, {data.valid_dir} and {data.test_dir}"
    expected = f"{splits}, each with {names}" if data.layout == "presplit" else names
    if isinstance(storage, LocalStorage) and not storage.path.is_dir():
        return (
            f"there is no folder {storage.url}: set data.root to a folder that contains {expected}."
        )
    text = f"there are no images ({', '.join(IMAGE_SUFFIXES)}) in {storage.url}/{folder.path}"
    in_folder = [key for key in skipped if PurePosixPath(key).is_relative_to(folder.path)]
    if in_folder:
        return f"{text}, but {len(in_folder)} other files such as {in_folder[0]}: convert them."
    other = "unsplit" if data.layout == "presplit" else "presplit"
    other_folders = _layout_folders(data.model_copy(update={"layout": other}))
    if any(storage.list_objects(other_folder.path) for other_folder in other_folders):
        return f'{text}: your folders are those of data.layout = "{other}".'
    if present := _image_folders(storage):
        return (
            f"{text}, but in {', '.join(present)}: rename the folders, or set "
            f"{_FOLDER_SETTINGS[data.layout]} to their names."
        )
    return f"{text}: data.root must contain {expected}."


_FOLDER_SETTINGS = {
    "presplit": (
        "data.train_dir, data.valid_dir, data.test_dir, data.images_dir and data.masks_dir"
    ),
    "unsplit": "data.images_dir and data.masks_dir",
}


def _image_folders(storage: Storage) -> list[str]:
    """The first folders below the root that contain images."""
    keys = [info.key for info in storage.list_objects()]
    parents = {
        str(PurePosixPath(key).parent) for key in keys if is_image_file(key) and not is_hidden(key)
    }
    return sorted(parents)[:_MAX_FOLDERS]


def _duplicate_names(names: Mapping[str, list[str]]) -> list[str]:
    return [f"{' and '.join(keys)} have the same stem" for keys in names.values() if len(keys) > 1]


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
