"""Translation of the training, of the previews and of the prediction."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contract.config.ini.augment_rules import is_augmented
from contract.config.ini.outcome import Outcome, Values
from contract.config.train import Train

# What Keras uses for AdamW if nothing is given, as those projects do.
_KERAS_WEIGHT_DECAY = 0.004
_MAX_PREVIEWS = 64
_INFERENCE_IMAGES = ("infer", "images_dir")
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
    switch, number = ("train", "epoch_change_infer"), ("train", "num_infer_images")
    is_on = values.get(*switch)
    if values.has(*_INFERENCE_IMAGES):
        images = Path(folder, values.get(*_INFERENCE_IMAGES))
        yield _translate_preview_source(images, is_drawn=bool(is_on))
    if is_on is None:
        if values.has(*number):
            text = "epoch_change_infer is absent: train.preview_images keeps its default"
            yield Outcome(number, status="not applicable", text=text)
        return
    count = min(max(values.get(*number), 1), _MAX_PREVIEWS) if is_on else 0
    setting = {"train.preview_images": count}
    yield Outcome(switch, setting)
    if values.has(*number):
        yield Outcome(number, setting, text="" if is_on else "epoch_change_infer is False")


def _translate_preview_source(images: Path, is_drawn: bool) -> Outcome:
    """The folder whose images are drawn: with masks, if they are in the folder next to it."""
    if not is_drawn:
        text = "[train] epoch_change_infer is not True; segfleet predict has it as an argument"
        return Outcome(_INFERENCE_IMAGES, status="not applicable", text=text)
    if not images.is_dir():
        text = "there is no such folder: validation slices are drawn after each epoch"
        return Outcome(_INFERENCE_IMAGES, status="not applicable", text=text)
    source = images.parent if images.name == "images" else images
    return Outcome(_INFERENCE_IMAGES, {"train.preview_source": str(source)})


def translate_prediction(values: Values) -> Iterator[Outcome]:
    """The settings of [predict]."""
    is_tiled = values.has("tiledinfer", "threshold")
    for section in ("infer", "tiledinfer"):
        name = (section, "threshold")
        if not values.has(*name):
            continue
        if values.get("mask", "rgb_map"):
            text = "each pixel has its most probable class"
            yield Outcome(name, status="not applicable", text=text)
        elif section == "infer" and is_tiled:
            yield Outcome(name, status="not applicable", text="[tiledinfer] threshold is used")
        else:
            yield Outcome(name, {"predict.threshold": round(values.get(*name) / 255, 4)})
    if values.has("tiledinfer", "overlapping"):
        overlap = 0.5 if values.get("tiledinfer", "overlapping") > 0 else 0.0
        yield Outcome(("tiledinfer", "overlapping"), {"predict.overlap": overlap})


def translate_image(values: Values) -> Iterator[Outcome]:
    """Keys of [image], which have no setting."""
    for key in ("color_converter", "gamma", "sharpening"):
        if not values.has("image", key):
            continue
        value = values.get("image", key)
        if value:
            text = f"= {value!r:.60}: convert the slices before the training"
            yield Outcome(("image", key), status="not supported", text=text)
        else:
            yield Outcome(
                ("image", key), status="not applicable", text="has no effect there, either"
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
    size, steps = ("train", "batch_size"), ("train", "steps_per_epoch")
    if values.has(*size):
        settings: dict[str, Any] = {"train.batch_size": values.get(*size)}
        if values.get(*size) % Train.model_fields["num_workers"].default:
            # The samples of a batch are divided among the workers.
            settings["train.num_workers"] = 1
        yield Outcome(size, settings)
    if values.has(*steps):
        if is_augmented(values):
            yield Outcome(steps, {"train.steps_per_epoch": values.get(*steps)})
        else:
            text = "without [model] generator, an epoch is the complete training split"
            yield Outcome(steps, status="not applicable", text=text)


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
