"""Training, previews and prediction."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contract.config.ini.outcome import Outcome, Values
from contract.config.ini.training_rules import (
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


def test_prediction() -> None:
    assert apply(translate_prediction, infer__threshold=51.0) == {"predict.threshold": 0.2}
    both = apply(translate_prediction, infer__threshold=51.0, tiledinfer__threshold=102.0)
    assert both == {"predict.threshold": 0.4}
    classes = apply(translate_prediction, infer__threshold=51.0, mask__rgb_map={"#ff0000": 1})
    assert classes == {}
    assert apply(translate_prediction, tiledinfer__overlapping=0) == {"predict.overlap": 0.0}


def test_changes_of_the_slices_are_not_supported() -> None:
    given = {("image", "gamma"): 0.5, ("image", "color_converter"): "cv2.COLOR_BGR2HSV"}
    outcomes = list(translate_image(Values(given)))
    assert [outcome.status for outcome in outcomes] == ["not supported"] * 2
