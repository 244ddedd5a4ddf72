"""Training, previews and prediction."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contract.config.ini.outcome import Outcome, Values
from contract.config.ini.training_rules import (
    translate_colors,
    translate_image,
    translate_prediction,
    translate_previews,
    translate_training,
)


def apply(rule: Callable[[Values], Iterator[Outcome]], **keys: Any) -> dict[str, Any]:
    """The settings of a rule; keys: section__key=value."""
    settings: dict[str, Any] = {}
    given = {(name.split("__")[0], name.split("__")[1]): value for name, value in keys.items()}
    for outcome in rule(Values(given)):
        settings |= outcome.settings
    return settings


@pytest.mark.parametrize(
    ("keys", "settings"),
    [
        ({}, {"train.clip_value": 0.2, "train.optimizer": "adam"}),
        ({"model__clipvalue": 0.0}, {"train.clip_value": None}),
        ({"model__optimizer": "adamw"}, {"train.weight_decay": 0.004}),
        ({"model__model": "TensorflowTransUNet"}, {"train.optimizer": "adamw"}),
        ({"model__model": "TensorflowSwinUNet"}, {"train.clip_value": 0.5}),
        ({"train__batch_size": 4}, {"train.batch_size": 4, "train.num_workers": None}),
        ({"train__batch_size": 1}, {"train.batch_size": 1, "train.num_workers": 1}),
        ({"train__patience": 0}, {"train.patience": None, "train.monitor": "val_loss"}),
        ({"train__steps_per_epoch": 9}, {"train.steps_per_epoch": None}),
        (
            {"train__steps_per_epoch": 9, "model__generator": True},
            {"train.steps_per_epoch": 9},
        ),
        ({"train__validation_steps": 9}, {"train.validation_steps": None}),
        (
            {"train__validation_steps": 9, "model__generator": True},
            {"train.validation_steps": 9},
        ),
        (
            {"train__learning_rate_reducer": True, "train__patience": 12},
            {"train.plateau_factor": 0.1, "train.plateau_patience": 6},
        ),
        (
            {"train__learning_rate_reducer": True, "train__patience": 1},
            {"train.lr_schedule": "plateau", "train.plateau_patience": 5},
        ),
        ({"train__reducer_factor": 0.3}, {"train.lr_schedule": "constant"}),
    ],
)
def test_training(keys: dict[str, Any], settings: dict[str, Any]) -> None:
    translated = apply(translate_training, **keys)
    assert {key: translated.get(key) for key in settings} == settings


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ({}, None),
        ({"train__num_infer_images": 6}, None),
        ({"train__epoch_change_infer": True}, 1),
        ({"train__epoch_change_infer": True, "train__num_infer_images": 600}, 64),
        ({"train__epoch_change_infer": False, "train__num_infer_images": 6}, 0),
    ],
)
def test_previews(keys: dict[str, Any], count: int | None) -> None:
    settings = apply(partial(translate_previews, folder=Path()), **keys)
    assert settings.get("train.preview_images") == count


def test_previews_of_a_folder(tmp_path: Path) -> None:
    def translate(**keys: Any) -> Any:
        rule = partial(translate_previews, folder=tmp_path)
        return apply(rule, infer__images_dir="./mini_test/images", **keys).get(
            "train.preview_source"
        )

    assert translate(train__epoch_change_infer=True) is None
    (tmp_path / "mini_test" / "images").mkdir(parents=True)
    assert translate(train__epoch_change_infer=True) == str(tmp_path / "mini_test")
    assert translate(train__epoch_change_infer=False) is None
    assert translate() is None


def test_previews_by_windows(tmp_path: Path) -> None:
    (tmp_path / "large" / "images").mkdir(parents=True)
    (tmp_path / "small").mkdir()
    folders = {"infer__images_dir": "small", "tiledinfer__images_dir": "large/images"}
    rule = partial(translate_previews, folder=tmp_path)
    both = apply(
        rule, **folders, train__epoch_change_infer=True, train__epoch_change_tiledinfer=True
    )
    assert both == {
        "train.preview_source": str(tmp_path / "large"),
        "train.preview_windows": True,
        "train.preview_images": 1,
    }
    only_windows = apply(rule, **folders, train__epoch_change_tiledinfer=True)
    assert only_windows == both
    resized = apply(rule, **folders, train__epoch_change_infer=True)
    assert resized["train.preview_source"] == str(tmp_path / "small")
    assert "train.preview_windows" not in resized
    (tmp_path / "large" / "images").rmdir()
    missing = apply(
        rule, **folders, train__epoch_change_infer=True, train__epoch_change_tiledinfer=True
    )
    assert missing == resized
    off = {"train__epoch_change_tiledinfer": False}
    assert apply(rule, **folders, **off) == {}


def test_prediction() -> None:
    rule = partial(translate_prediction, overrides={})
    assert apply(rule, infer__threshold=51.0) == {"predict.threshold": 0.2}
    both = apply(rule, infer__threshold=51.0, tiledinfer__threshold=102.0)
    assert both == {"predict.threshold": 0.4, "predict.intersect_resized": True}
    classes = apply(rule, infer__threshold=51.0, mask__rgb_map={"#ff0000": 1})
    assert classes == {}
    by_windows = {"predict.overlap": 0.0, "predict.intersect_resized": True}
    assert apply(rule, tiledinfer__overlapping=0) == by_windows
    keys = {"tiledinfer__split_size": 256, "tiledinfer__bitwise_blending": False}
    windows = {"predict.window_size": 256, "predict.intersect_resized": False}
    assert apply(rule, **keys) == windows
    colors = apply(rule, **keys, mask__rgb_map={"#ff0000": 1})
    assert colors == {"predict.window_size": 256}
    overrides = {"data.classes": {"liver": 1, "tumor": 2}}
    by_class = apply(partial(translate_prediction, overrides=overrides), **keys)
    assert by_class == {"predict.window_size": 256}


@pytest.mark.parametrize(
    ("keys", "overrides", "color"),
    [
        ({}, {}, None),
        ({"colorize": True, "white": "#008000"}, {}, "#008000"),
        ({"colorize": True}, {}, "#ffffff"),
        ({"colorize": False, "white": "#008000"}, {}, None),
        ({"colorize": True, "white": "#008000"}, {"data.classes.liver": 1}, None),
    ],
)
def test_colors(keys: dict[str, Any], overrides: dict[str, Any], color: str | None) -> None:
    named = {f"segmentation__{key}": value for key, value in keys.items()}
    settings = apply(partial(translate_colors, overrides=overrides), **named)
    assert settings.get("data.foreground_color") == color
    by_class = apply(
        partial(translate_colors, overrides=overrides), **named, mask__rgb_map={"#ff0000": 1}
    )
    assert by_class == {}


def test_another_background_is_reported() -> None:
    given = {("segmentation", "black"): "#0000ff"}
    (outcome,) = translate_colors(Values(given), {})
    assert (outcome.status, outcome.settings) == ("not supported", {})


@pytest.mark.parametrize(
    ("image", "channels", "settings"),
    [
        ({"gamma": 1.5, "sharpening": 2.0}, 1, {"data.gamma": 1.5, "data.sharpening": 2.0}),
        ({"gamma": 0.0, "sharpening": -1.0}, 3, {}),
        ({"color_converter": "cv2.COLOR_BGR2HSV_FULL"}, 3, {"data.color_space": "hsv"}),
        ({"color_converter": "cv2.COLOR_RGB2YCrCb"}, 3, {"data.color_space": "ycrcb"}),
        ({"color_converter": "cv2.COLOR_BGR2XYZ"}, 1, {}),
    ],
)
def test_changes_of_every_slice(
    image: dict[str, Any], channels: int, settings: dict[str, Any]
) -> None:
    keys = {f"image__{key}": value for key, value in image.items()}
    rule = partial(translate_image, overrides={})
    assert apply(rule, **keys, model__image_channels=channels) == settings


def test_an_unknown_color_space_is_reported() -> None:
    given = {("image", "color_converter"): "cv2.COLOR_BGR2LUV", ("model", "image_channels"): 3}
    (outcome,) = translate_image(Values(given), {})
    assert outcome.status == "not supported"
    grey = {("image", "color_converter"): "cv2.COLOR_BGR2HSV", ("model", "image_channels"): 3}
    (outcome,) = translate_image(Values(grey), {"network.image_channels": 1})
    assert (outcome.status, outcome.settings) == ("not applicable", {})
