"""Data settings that contradict each other are rejected."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.config import Config, Data

FOLDER = {"source": "folder", "root": "/slices"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "folder"}, r"requires data\.root, the folder of your slices"),
        ({"root": "/slices"}, '"/slices" is not read .* set data.source = "folder", or remove'),
        ({"train_dir": "a", "valid_dir": "a"}, r"train_dir, .* must differ"),
        (
            {"images_dir": "a", "masks_dir": "a"},
            r"and so must data\.images_dir",
        ),
        ({"images_dir": "/images"}, "should match pattern"),
        ({"images_dir": "../images"}, "should match pattern"),
        ({"mask_pattern": "mask"}, "should match pattern"),
        ({"mask_pattern": "{name}/{name}"}, "should match pattern"),
        ({"valid_fraction": 0.6, "test_fraction": 0.4}, "no patient to train on"),
        ({"intensity_low": 5.0, "intensity_high": 5.0}, r"data\.intensity_low must be below"),
        ({"intensity_high": float("inf")}, "finite number"),
        (
            {"patient_id_regex": "("},
            r"patient_id_regex = '\(' is not a valid regular expression \(.*\): correct",
        ),
        ({"mask_threshold": 65535}, "less than 65535"),
        ({"crop_rows": [0.5, 0.5]}, r"data\.crop_rows = \[0\.5, 0\.5\] is less than 0\.05 of a"),
        ({"crop_columns": [0.8, 0.2]}, r"such as \[0\.2, 0\.8\]"),
        ({"crop_columns": [-0.1, 0.2]}, "greater than or equal to 0"),
        ({**FOLDER, "classes": {"a": 1, "b": "#ff0000"}}, "grey values for all classes, or colors"),
        ({**FOLDER, "classes": {"a": 3, "b": 3}}, r"data\.classes\.a = 3 is the value of two"),
        ({**FOLDER, "classes": {"a": "#000000"}}, "is the value of background"),
        ({**FOLDER, "classes": {"mean": 1}}, r"data\.classes\.mean: no class can have this name"),
        ({**FOLDER, "classes": {"a": "red"}}, "'red' is not a grey value from 1 to 65535, nor a"),
        ({**FOLDER, "classes": {"a": 0}}, "0 is not a grey value"),
        ({**FOLDER, "classes": {"a b": 1}}, "should match pattern"),
        ({**FOLDER, "classes": {"a": 1}, "mask_threshold": 3}, "not both"),
        ({"classes": {"a": 1}}, r'data\.classes has no effect while data\.source = "phantom"'),
        ({**FOLDER, "class_tolerance": 3}, "class_tolerance has no effect without data.classes"),
        ({"other_values_are_background": True}, "no effect without data.classes"),
    ],
)
def test_values_that_cannot_be_used_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Data.model_validate(values)


def test_a_folder_of_slices_is_described_by_its_names() -> None:
    data = Data.model_validate(
        {
            "source": "folder",
            "root": "s3://bucket/slices",
            "valid_dir": "split/val",
            "mask_pattern": "seg_{name}",
        }
    )
    assert (data.valid_dir, data.mask_pattern) == ("split/val", "seg_{name}")


def test_classes_have_a_value_or_a_color_and_keep_their_order() -> None:
    data = Data.model_validate({**FOLDER, "classes": {"b": "#ff8000", "a": [0, 128, 0]}})
    assert data.classes == {"b": (255, 128, 0), "a": (0, 128, 0)}
    assert [each.name for each in data.segmentation_classes] == ["b", "a"]
    (foreground,) = Data().segmentation_classes
    assert foreground.name == "foreground"


def test_the_foreground_has_a_color() -> None:
    data = Data.model_validate({"foreground_color": "#008000"})
    (foreground,) = data.segmentation_classes
    assert (foreground.name, foreground.value, foreground.color) == (
        "foreground",
        None,
        (0, 128, 0),
    )
    assert Config(data=data).fingerprint() == Config().fingerprint()
    with pytest.raises(ValidationError, match=r"foreground_color has no effect with data\.classes"):
        Data.model_validate({**FOLDER, "classes": {"a": 1}, "foreground_color": [0, 128, 0]})
    with pytest.raises(ValidationError, match="black is the color of the background"):
        Data.model_validate({"foreground_color": "#000000"})
    for wrong in (3, "green", [1, 2]):
        with pytest.raises(ValidationError, match="is not a color such as"):
            Data.model_validate({"foreground_color": wrong})
