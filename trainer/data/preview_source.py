"""The images of train.preview_source; without TensorFlow, so that a run checks it at its start."""

from pathlib import PurePosixPath

from contract.config import Train
from contract.errors import DataError
from contract.imaging.file_names import is_hidden, is_image_file, normalized_stem
from contract.storage import Storage, open_storage

_IMAGES, _MASKS = "images", "masks"


def check_preview_source(train: Train) -> None:
    """DataError if a run draws the slices of a folder that has no images."""
    if train.preview_source and train.preview_images:
        find_own_slices(open_storage(train.preview_source))


def find_own_slices(source: Storage) -> list[tuple[str, str | None]]:
    """The images in a folder, each with its mask or None, by name.

    There are the folders images and masks, or images alone. Raises DataError without images.
    """
    keys = [
        info.key
        for info in source.list_objects()
        if is_image_file(info.key) and not is_hidden(info.key)
    ]
    masks = {normalized_stem(key): key for key in keys if _is_in(key, _MASKS)}
    images = [key for key in keys if _is_in(key, _IMAGES)] or [
        key for key in keys if not _is_in(key, _MASKS)
    ]
    if not images:
        raise DataError(
            f"there are no images in train.preview_source = {source.url}: name another folder, or "
            "remove the setting to draw validation slices."
        )
    named = {key: normalized_stem(key).removeprefix(f"{_IMAGES}/") for key in images}
    return [(key, masks.get(f"{_MASKS}/{named[key]}")) for key in sorted(images)]


def _is_in(key: str, folder: str) -> bool:
    return PurePosixPath(key).parts[0] == folder and key != folder
