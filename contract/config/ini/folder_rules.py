"""Translation of the folders of slices, of [mask] and of the classes."""

import os.path
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

from contract.config.ini.keys import KeyName
from contract.config.ini.outcome import Outcome, TranslationError, Values

# A folder that does not exist: the layout has a test split only if its folder does.
_NO_TEST_SPLIT = "no-test-split"
# Which part of the training slices those projects take for validation.
_VALID_FRACTION = 0.2
_URL = re.compile(r"\w+://")
_KEYS = ("image_datapath", "mask_datapath")
# Algorithms of cv2.threshold that choose the threshold of each mask.
_AUTOMATIC = ("OTSU", "TRIANGLE")

Pair = tuple[str, str]
"""The folder of the images and that of the masks."""
Settings = dict[KeyName, dict[str, Any]]


@dataclass(frozen=True)
class _Layout:
    """root/directory/images and root/directory/masks, with the directory of each section."""

    root: str
    images: str
    masks: str
    directories: Mapping[str, str]


def translate_folders(
    values: Values, folder: Path, overrides: Mapping[str, Any]
) -> Iterator[Outcome]:
    """The settings that say where the slices are.

    folder: the folder of the file, which its paths are relative to. Raises TranslationError if the
    folders are not arranged like train|valid|test x images|masks.
    """
    if overrides.get("data.source", "folder") != "folder":
        return
    is_root_given = overrides.get("data.root") is not None
    validation = "valid" if _has_pair(values, "valid") else "eval"
    try:
        settings = _arrange(values, folder, validation)
    except TranslationError:
        if not is_root_given:
            raise
        settings = {("train", "image_datapath"): {"data.source": "folder"}}
    for section in ("train", "eval", "valid", "test"):
        is_used = section in ("train", "test", validation)
        for key in _KEYS:
            name = (section, key)
            if chosen := settings.get(name):
                yield Outcome(name, chosen)
            elif values.has(section, key) and not is_used:
                yield Outcome(name, status="not applicable", text=f"[{validation}] is used")
    yield from _translate_splitter(values, validation)


def translate_masks(values: Values, overrides: Mapping[str, Any]) -> Iterator[Outcome]:
    """The settings that say what is foreground."""
    colors = {color: index for color, index in _colors(values).items() if index}
    if colors:
        ordered = sorted(colors, key=lambda color: colors[color])
        classes = {f"class_{colors[color]}": color for color in ordered}
        yield Outcome(("mask", "rgb_map"), {"data.classes": classes}, text="rename the classes")
    count = values.get("model", "num_classes")
    if count != 1 and not colors and not overrides.get("data.classes"):
        raise TranslationError(
            ("model", "num_classes"),
            f"= {count} needs [mask] rgb_map: add it, or set data.classes, such as "
            "'data.classes={liver=1, tumor=2}'",
        )
    yield from _translate_threshold(values, bool(colors))
    if values.get("mask", "blur"):
        text = "blurred masks are larger than what was drawn"
        yield Outcome(("mask", "blur"), status="not supported", text=text)
    elif values.has("mask", "blur"):
        yield Outcome(("mask", "blur"), status="not applicable", text="masks are not blurred")


def _colors(values: Values) -> Mapping[str, int]:
    return values.get("mask", "rgb_map") or {}


def _translate_threshold(values: Values, has_classes: bool) -> Iterator[Outcome]:
    keys = ("binarize", "threshold", "algorithm")
    names = [("mask", key) for key in keys if values.has("mask", key)]
    if values.get("mask", "binarize") and not has_classes:
        algorithm = (values.get("mask", "algorithm") or "").upper()
        if any(automatic in algorithm for automatic in _AUTOMATIC):
            text = "decided from the values of all masks together"
            yield from (Outcome(name, text=text) for name in names)
            return
        above = _largest_background(values.get("mask", "threshold"), algorithm)
        if above is not None:
            setting = {"data.mask_threshold": max(above, 0)}
            yield from (Outcome(name, setting) for name in names)
            return
    text = (
        "not used with rgb_map"
        if has_classes
        else "without binarize = True, foreground is decided from the values of all masks: above "
        "127 in JPEG masks, not above 0, which enlarges them"
    )
    yield from (Outcome(name, status="not applicable", text=text) for name in names)


def _largest_background(threshold: float | None, algorithm: str) -> int | None:
    """data.mask_threshold, from what a threshold means with an algorithm of OpenCV or without."""
    if "TRUNC" in algorithm:
        return 0  # It keeps values up to the threshold, and all but 0 are foreground.
    if threshold is None:
        return None
    # Without an algorithm, foreground is there from the threshold on, and here above it.
    return floor(threshold) if algorithm else ceil(threshold) - 1


def _translate_splitter(values: Values, validation: str) -> Iterator[Outcome]:
    name = ("train", "dataset_splitter")
    if not values.has(*name):
        return
    if _has_pair(values, validation):
        text = f"[{validation}] has the validation slices"
        yield Outcome(name, status="not applicable", text=text)
    else:
        yield Outcome(name, text="patients are split, not slices")


def _has_pair(values: Values, section: str) -> bool:
    return all(values.has(section, key) for key in _KEYS)


def _arrange(values: Values, folder: Path, validation: str) -> Settings:
    """The settings of each key of a folder."""
    sections = {"train": "train", "valid": validation, "test": "test"}
    pairs = {
        section: _absolute_pair(values, section, folder)
        for section in sections.values()
        if _has_pair(values, section)
    }
    if "train" not in pairs:
        key = "mask_datapath" if values.has("train", "image_datapath") else "image_datapath"
        raise TranslationError(
            ("train", key), "is missing: add the folder of the training slices, or set data.root"
        )
    if validation not in pairs:
        return _arrange_unsplit(pairs["train"])
    if pairs.get("test") == pairs[validation]:
        del pairs["test"]
    layout = _find_layout(pairs, validation)
    shared = {
        "data.source": "folder",
        "data.root": layout.root,
        "data.images_dir": layout.images,
        "data.masks_dir": layout.masks,
    }
    settings = {"train": shared, validation: {}, "test": {}}
    for split, section in sections.items():
        if section in layout.directories:
            settings[section] |= {f"data.{split}_dir": layout.directories[section]}
    if "test" not in pairs:
        for section in (validation, "test"):
            settings[section] |= {"data.test_dir": _NO_TEST_SPLIT}
    return {(section, key): chosen for section, chosen in settings.items() for key in _KEYS}


def _arrange_unsplit(train: Pair) -> Settings:
    """Without validation slices, segfleet splits the patients of the training slices."""
    root = _split_directory("train", train)
    images, masks = (_relative(each, root) for each in train)
    settings = {
        "data.source": "folder",
        "data.layout": "unsplit",
        "data.root": root,
        "data.images_dir": images,
        "data.masks_dir": masks,
        "data.valid_fraction": _VALID_FRACTION,
        "data.test_fraction": 0.0,
    }
    return {("train", key): settings for key in _KEYS}


def _absolute_pair(values: Values, section: str, folder: Path) -> Pair:
    images, masks = (_absolute(values, (section, key), folder) for key in _KEYS)
    return images, masks


def _absolute(values: Values, name: KeyName, folder: Path) -> str:
    path = values.get(*name)
    if "*" in path:
        raise TranslationError(name, f"= {path!r} has a *: name one folder, or set data.root")
    if _URL.match(path):
        return path.rstrip("/")
    return os.path.normpath(folder / path)


def _split_directory(section: str, pair: Pair) -> str:
    """The folder that has the images and the masks of a split."""
    directory = _common_path(pair)
    if directory is None or directory in pair:
        raise TranslationError(
            (section, "mask_datapath"),
            f"and image_datapath, {pair[1]!r} and {pair[0]!r}, must be two folders in one folder: "
            "move them, or set data.root",
        )
    return directory


def _find_layout(pairs: Mapping[str, Pair], validation: str) -> _Layout:
    """The layout of the folders of each section; TranslationError if they have no common one."""
    directories = {section: _split_directory(section, pair) for section, pair in pairs.items()}
    root = _common_path(list(directories.values()))
    if root is None or root in directories.values():
        raise TranslationError(
            (validation, "image_datapath"),
            "and that of [train] must be in different folders of one folder, such as train/images "
            "and valid/images: move them, or set data.root",
        )
    names = {
        section: [_relative(each, directories[section]) for each in pair]
        for section, pair in pairs.items()
    }
    for section, ends in names.items():
        if ends != names["train"]:
            raise TranslationError(
                (section, "image_datapath"),
                f"and mask_datapath end in {' and '.join(ends)}, those of [train] in "
                f"{' and '.join(names['train'])}: rename the folders, or set data.root",
            )
    images, masks = names["train"]
    relative = {section: _relative(path, root) for section, path in directories.items()}
    return _Layout(root, images, masks, relative)


def _common_path(paths: Pair | list[str]) -> str | None:
    """The longest common folder; None if there is none, as for folders of different stores."""
    stores = {match[0] if (match := _URL.match(path)) else "" for path in paths}
    if len(stores) > 1:
        return None
    store = stores.pop()
    common = posixpath.commonpath([path.removeprefix(store) for path in paths])
    return store + common if common else None


def _relative(path: str, start: str) -> str:
    return path.removeprefix(start).strip("/")
