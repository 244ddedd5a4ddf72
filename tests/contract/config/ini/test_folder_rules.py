"""Where the slices are, and what is foreground."""

from pathlib import Path
from typing import Any

import pytest

from contract.config import validate
from contract.config.ini.folder_rules import translate_folders, translate_masks
from contract.config.ini.outcome import TranslationError, Values

FOLDER = Path("/projects/UNet/Brain")
KEYS = ("image_datapath", "mask_datapath")


def settings_of(folders: dict[str, tuple[str, str]], **overrides: Any) -> dict[str, Any]:
    given = {
        (section, key): path
        for section, pair in folders.items()
        for key, path in zip(KEYS, pair, strict=True)
    }
    result: dict[str, Any] = {}
    for outcome in translate_folders(Values(given), FOLDER, overrides):
        result |= {key.removeprefix("data."): value for key, value in outcome.settings.items()}
    if result.get("root"):
        validate({"data": result}, "translated")
    return result


def pair(directory: str, images: str = "images", masks: str = "masks") -> tuple[str, str]:
    return f"{directory}/{images}/", f"{directory}/{masks}"


def test_the_three_splits() -> None:
    names = {"train": "train", "eval": "valid", "test": "test"}
    folders = {section: pair(f"../../data/{name}") for section, name in names.items()}
    assert settings_of(folders) == {
        "source": "folder",
        "root": "/projects/data",
        "images_dir": "images",
        "masks_dir": "masks",
        "train_dir": "train",
        "valid_dir": "valid",
        "test_dir": "test",
    }


def test_folders_below_the_splits_and_other_names() -> None:
    folders = {
        "train": pair("/d/train/A", "image", "mask"),
        "valid": pair("/d/v/A", "image", "mask"),
    }
    settings = settings_of(folders)
    assert (settings["root"], settings["train_dir"], settings["valid_dir"]) == (
        "/d",
        "train/A",
        "v/A",
    )
    assert (settings["images_dir"], settings["masks_dir"]) == ("image", "mask")


@pytest.mark.parametrize("test", [{}, {"test": pair("/d/test")}])
def test_one_folder_for_validation_and_test_is_for_validation(
    test: dict[str, tuple[str, str]],
) -> None:
    settings = settings_of({"train": pair("/d/train"), "eval": pair("/d/test")} | test)
    assert (settings["valid_dir"], settings["test_dir"]) == ("test", "no-test-split")


def test_valid_is_used_before_eval() -> None:
    folders = {"train": pair("/d/train"), "eval": pair("/d/e"), "valid": pair("/d/v")}
    assert settings_of(folders)["valid_dir"] == "v"


def test_without_validation_slices_patients_are_split() -> None:
    assert settings_of({"train": pair("/d/train")}) == {
        "source": "folder",
        "layout": "unsplit",
        "root": "/d/train",
        "images_dir": "images",
        "masks_dir": "masks",
        "valid_fraction": 0.2,
        "test_fraction": 0.0,
    }


def test_object_stores() -> None:
    folders = {"train": pair("s3://b/p/train"), "valid": pair("s3://b/p/valid")}
    assert settings_of(folders)["root"] == "s3://b/p"


BAD = [
    ({}, "is missing: add the folder"),
    ({"train": ("/d/train", "/d/train/masks")}, "must be two folders in one folder"),
    ({"train": ("/d/i", "s3://b/m")}, "must be two folders in one folder"),
    ({"train": ("a/*/images", "a/*/masks")}, r"has a \*: name one folder"),
    ({"train": pair("/d/a"), "eval": pair("/d/a")}, "must be in different folders"),
    ({"train": pair("/d"), "eval": pair("/d/a")}, "must be in different folders"),
    ({"train": pair("s3://a/t"), "eval": pair("s3://b/v")}, "must be in different folders"),
    (
        {"train": pair("/d/a"), "eval": pair("/d/b", "image")},
        r"end in image and masks, those of \[train\] in images and masks",
    ),
]


@pytest.mark.parametrize(("folders", "message"), BAD)
def test_other_arrangements_are_errors_without_another_root(
    folders: dict[str, tuple[str, str]], message: str
) -> None:
    with pytest.raises(TranslationError, match=message):
        settings_of(folders)
    assert settings_of(folders, **{"data.root": "/slices"}) == {"source": "folder"}
    assert settings_of(folders, **{"data.source": "phantom"}) == {}


def masks_of(overrides: dict[str, Any], **mask: Any) -> dict[str, Any]:
    given = {("mask", key): value for key, value in mask.items()}
    given[("model", "num_classes")] = mask.get("num_classes", 1)
    result: dict[str, Any] = {}
    for outcome in translate_masks(Values(given), overrides):
        result |= outcome.settings
    return result


@pytest.mark.parametrize(
    ("mask", "settings"),
    [
        # There, a pixel of the threshold itself is foreground.
        ({"binarize": True, "threshold": 60.0}, {"data.mask_threshold": 59}),
        ({"binarize": True, "threshold": 59.5}, {"data.mask_threshold": 59}),
        ({"binarize": False, "threshold": 60.0}, {}),
        ({"binarize": True}, {}),
        ({"binarize": True, "threshold": 60.0, "algorithm": "cv2.THRESH_OTSU"}, {}),
        (
            {"binarize": True, "threshold": 60.0, "algorithm": "cv2.THRESH_BINARY"},
            {"data.mask_threshold": 60},
        ),
        (
            {"binarize": True, "threshold": 60.0, "algorithm": "cv2.THRESH_TRUNC"},
            {"data.mask_threshold": 0},
        ),
        ({"rgb_map": {"#000000": 0, "#0000ff": 1}}, {"data.classes": {"class_1": "#0000ff"}}),
    ],
)
def test_masks(mask: dict[str, Any], settings: dict[str, Any]) -> None:
    assert masks_of({}, **mask) == settings


def test_several_classes_need_their_colors() -> None:
    with pytest.raises(TranslationError, match=r"= 3 needs \[mask\] rgb_map"):
        masks_of({}, num_classes=3)
    assert masks_of({"data.classes": {"liver": 1}}, num_classes=3) == {}
