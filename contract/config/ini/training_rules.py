"""Translation of the training, of the previews and of the prediction."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contract.config.ini.augment_rules import is_augmented
from contract.config.ini.keys import KeyName, Status
from contract.config.ini.outcome import Outcome, Values
from contract.config.train import Train

# What Keras uses for AdamW if nothing is given, as those projects do.
_KERAS_WEIGHT_DECAY = 0.004
_MAX_PREVIEWS = 64
_COLOR_CONVERTER = re.compile(r"(?:cv2\.)?COLOR_(?:BGR|RGB)2(\w+)")
# By the ends of OpenCV's names; the hue has its full range here.
_COLOR_SPACES = {
    "hsv": "hsv",
    "hsv_full": "hsv",
    "lab": "lab",
    "xyz": "xyz",
    "ycrcb": "ycrcb",
    "ycr_cb": "ycrcb",
}
# Defaults of those networks that have their own.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "TensorflowSwinUNet": {"clipvalue": 0.5},
    "TensorflowTransUNet": {"clipvalue": 0.5, "optimizer": "adamw"},
}


def translate_training(values: Values) -> Iterator[Outcome]:
    """The settings of [train]."""
    optimizer = _compile_option(values, "optimizer")
    settings = {"train.optimizer": optimizer}
    if optimizer == "adamw":
        settings["train.weight_decay"] = _KERAS_WEIGHT_DECAY
    yield Outcome(("model", "optimizer"), settings)
    yield from _translate_clipping(values)
    yield from _translate_batches(values)
    yield from _translate_patience(values)
    yield from _translate_schedule(values)


def translate_previews(values: Values, folder: Path) -> Iterator[Outcome]:
    """The settings of the images that are drawn after each epoch.

    folder: that of the file, from which its paths are taken.
    """
    resized, tiled = ("train", "epoch_change_infer"), ("train", "epoch_change_tiledinfer")
    number = ("train", "num_infer_images")
    switches = {"tiledinfer": values.get(*tiled), "infer": values.get(*resized)}
    drawn = [section for section, is_on in switches.items() if is_on]
    folders = {
        section: Path(folder, values.get(section, "images_dir"))
        for section in switches
        if values.has(section, "images_dir")
    }
    chosen = next((each for each in drawn if each in folders and folders[each].is_dir()), None)
    for section, images in folders.items():
        yield _translate_preview_source(section, images, drawn, chosen)
    if values.get(*resized) is None and not drawn:
        if values.has(*number):
            text = "epoch_change_infer is absent: train.preview_images keeps its default"
            yield Outcome(number, status="not applicable", text=text)
        return
    count = min(max(values.get(*number), 1), _MAX_PREVIEWS) if drawn else 0
    for name in (resized, tiled, number):
        if values.has(*name):
            text = "" if drawn else "no images are drawn"
            yield Outcome(name, {"train.preview_images": count}, text=text)


def _translate_preview_source(
    section: str, images: Path, drawn: list[str], chosen: str | None
) -> Outcome:
    """The folder whose images are drawn: with masks, if they are in the folder next to it.

    drawn: the sections whose images those projects draw; chosen: the one whose images a run draws.
    """
    name = (section, "images_dir")
    if section == chosen:
        source = images.parent if images.name == "images" else images
        settings: dict[str, Any] = {"train.preview_source": str(source)}
        if section == "tiledinfer":
            settings["train.preview_windows"] = True
        return Outcome(name, settings)
    if section not in drawn:
        text = f"[train] epoch_change_{section} is not True; segfleet predict has it as an argument"
    elif chosen is None:
        text = "there is no such folder: validation slices are drawn after each epoch"
    else:
        text = f"the images of [{chosen}] are drawn"
    return Outcome(name, status="not applicable", text=text)


def translate_prediction(values: Values, overrides: Mapping[str, Any]) -> Iterator[Outcome]:
    """The settings of [predict]."""
    has_classes = _has_classes(values, overrides)
    is_tiled = values.has("tiledinfer", "threshold")
    for section in ("infer", "tiledinfer"):
        name = (section, "threshold")
        if not values.has(*name):
            continue
        if has_classes:
            text = "each pixel has its most probable class"
            yield Outcome(name, status="not applicable", text=text)
        elif section == "infer" and is_tiled:
            yield Outcome(name, status="not applicable", text="[tiledinfer] threshold is used")
        else:
            yield Outcome(name, {"predict.threshold": round(values.get(*name) / 255, 4)})
    yield from _translate_windows(values, has_classes=has_classes)


def translate_colors(values: Values, overrides: Mapping[str, Any]) -> Iterator[Outcome]:
    """The color of the foreground in masks and overlays."""
    has_classes = _has_classes(values, overrides)
    switch, white, black = (("segmentation", key) for key in ("colorize", "white", "black"))
    if values.has(*black):
        status: Status = "not applicable" if values.get(*black) == "#000000" else "not supported"
        yield Outcome(black, status=status, text="the background is black")
    if not values.get(*switch) or has_classes:
        text = "the classes have colors" if values.get(*switch) else "colorize is not True"
        for name in (switch, white):
            if values.has(*name):
                yield Outcome(name, status="not applicable", text=text)
        return
    setting = {"data.foreground_color": values.get(*white)}
    yield Outcome(switch, setting)
    if values.has(*white):
        yield Outcome(white, setting)


def _translate_windows(values: Values, *, has_classes: bool) -> Iterator[Outcome]:
    """The settings of sliding windows; those projects combine their mask with the resized one."""
    overlap, size = ("tiledinfer", "overlapping"), ("tiledinfer", "split_size")
    blending = ("tiledinfer", "bitwise_blending")
    if not any(section == "tiledinfer" for section, _ in values.given):
        return
    if values.has(*overlap):
        yield Outcome(overlap, {"predict.overlap": 0.5 if values.get(*overlap) > 0 else 0.0})
    if values.has(*size):
        yield Outcome(size, {"predict.window_size": values.get(*size)})
    if not has_classes:
        yield Outcome(blending, {"predict.intersect_resized": values.get(*blending)})
    elif values.has(*blending):
        text = "each pixel has its most probable class"
        yield Outcome(blending, status="not applicable", text=text)


def translate_image(values: Values, overrides: Mapping[str, Any]) -> Iterator[Outcome]:
    """The changes of every slice, from [image]."""
    converter, gamma, sharpening = (
        ("image", key) for key in ("color_converter", "gamma", "sharpening")
    )
    channels = overrides.get("network.image_channels", values.get("model", "image_channels"))
    if values.get(*converter):
        yield _translate_converter(converter, str(values.get(*converter)), is_rgb=channels == 3)
    for name, setting in ((gamma, "data.gamma"), (sharpening, "data.sharpening")):
        if values.has(*name) and values.get(*name) > 0:
            yield Outcome(name, {setting: values.get(*name)})
        elif values.has(*name):
            yield Outcome(name, status="not applicable", text="has no effect there, either")


def _translate_converter(name: KeyName, value: str, *, is_rgb: bool) -> Outcome:
    match = _COLOR_CONVERTER.fullmatch(value)
    space = _COLOR_SPACES.get(match[1].lower()) if match else None
    if space is None:
        text = f"= {value:.60}: convert the slices before the training"
        return Outcome(name, status="not supported", text=text)
    if not is_rgb:
        text = "slices have one channel: [model] image_channels"
        return Outcome(name, status="not applicable", text=text)
    return Outcome(name, {"data.color_space": space})


def _has_classes(values: Values, overrides: Mapping[str, Any]) -> bool:
    """Whether the masks have classes, by the file or by a setting that replaces it."""
    return bool(values.get("mask", "rgb_map")) or any(
        key.startswith("data.classes") for key in overrides
    )


def _compile_option(values: Values, key: str) -> Any:
    """The value of a key whose default depends on the network."""
    own = _DEFAULTS.get(values.get("model", "model"), {})
    return own[key] if key in own and not values.has("model", key) else values.get("model", key)


def _translate_clipping(values: Values) -> Iterator[Outcome]:
    clip = _compile_option(values, "clipvalue")
    settings = {"train.clip_value": clip} if clip > 0 else {}
    yield Outcome(("model", "clipvalue"), settings, text="" if clip > 0 else "no clipping")


def _translate_batches(values: Values) -> Iterator[Outcome]:
    size = ("train", "batch_size")
    if values.has(*size):
        settings: dict[str, Any] = {"train.batch_size": values.get(*size)}
        if values.get(*size) % Train.model_fields["num_workers"].default:
            # The samples of a batch are divided among the workers.
            settings["train.num_workers"] = 1
        yield Outcome(size, settings)
    for key in ("steps_per_epoch", "validation_steps"):
        name = ("train", key)
        if values.has(*name) and is_augmented(values):
            yield Outcome(name, {f"train.{key}": values.get(*name)})
        elif values.has(*name):
            text = "without [model] generator, an epoch is the complete splits"
            yield Outcome(name, status="not applicable", text=text)


def _translate_patience(values: Values) -> Iterator[Outcome]:
    patience = values.get("train", "patience")
    # Keras stops early, and selects the best checkpoint, by this metric.
    settings: dict[str, Any] = {"train.monitor": "val_loss"}
    if patience > 0:
        settings["train.patience"] = patience
    yield Outcome(("train", "patience"), settings)


def _translate_schedule(values: Values) -> Iterator[Outcome]:
    switch = ("train", "learning_rate_reducer")
    factor, patience = ("train", "reducer_factor"), ("train", "reducer_patience")
    is_on = values.get(*switch)
    yield Outcome(switch, {"train.lr_schedule": "plateau" if is_on else "constant"})
    if is_on:
        default = values.get("train", "patience") // 2 or 5
        epochs = values.get(*patience) if values.has(*patience) else max(default, 1)
        yield Outcome(factor, {"train.plateau_factor": values.get(*factor)})
        yield Outcome(patience, {"train.plateau_patience": epochs})
        return
    for name in (factor, patience):
        if values.has(*name):
            text = "learning_rate_reducer is not True"
            yield Outcome(name, status="not applicable", text=text)
