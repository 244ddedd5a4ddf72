"""Every key of the dialect: how its value is read, and what becomes of it here.

The table of docs/from-antillia.md is generated from this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from contract.config.ini import value_types as types
from contract.config.ini.network_keys import (
    NETWORK_KEYS,
    NETWORK_NAMES,
    describe_network_key,
)
from contract.config.train import Train

Status = Literal["translated", "not applicable", "not supported", "default", "repeated", "unknown"]
KeyName = tuple[str, str]
"""Section and key."""


@dataclass(frozen=True)
class Key:
    """A key of the dialect."""

    read: types.Reader
    becomes: str
    """For a translated key, its settings; else why it has none."""
    status: Status = "translated"
    default: Any = None
    """The value that the projects use if the key is absent; None if there is no such value."""
    setting: str | None = None
    """The setting that takes the value as it is; None if a rule translates it."""


def _same(setting: str, read: types.Reader, default: Any = None) -> Key:
    return Key(read, setting, default=default, setting=setting)


def _unused(reason: str) -> Key:
    return Key(types.anything, reason, "not applicable")


def _unsupported(reason: str, read: types.Reader = types.anything) -> Key:
    return Key(read, reason, "not supported")


# With several classes, "binary_crossentropy" is the categorical cross-entropy (docs/trainer.md).
_LOSSES = {name: name for name in get_args(Train.model_fields["loss"].annotation)} | {
    "categorical_crossentropy": "binary_crossentropy",
    "dice_loss_multiclass": "dice_loss",
}
_OPTIMIZERS = {"Adam": "adam", "AdamW": "adamw", "SGD": "sgd"}

_FOLDERS = "data.root, data.{0}_dir, data.images_dir, data.masks_dir"
_PREDICT = "the arguments of segfleet predict BUNDLE INPUT OUTPUT"
_OVERLAYS = "segfleet predict --overlays"
_PREVIEWS = "train.preview_source with [train] epoch_change_{0}; INPUT of segfleet predict"
_RUN_FOLDER = "a run writes below storage.root/runs/<run.name>"
_GRID = "data.augment.{0}_probability, data.augment.{0}"
_CIRCLES = (
    "there is one distortion about the center of the slice, not one in each of several circles"
)
_EXPORTED = "counts with predict.sliding_window = true (segfleet export)"
_TILE_THRESHOLD = "predict.threshold, as a fraction of 255"

_MODEL: Mapping[str, Key] = {
    "model": Key(
        types.choice({name: name for name in NETWORK_NAMES}),
        "network.name",
        default="TensorflowUNet",
    ),
    "generator": Key(types.flag, "data.augment.*: False sets all probabilities to 0"),
    "image_width": Key(types.whole_number, "network.image_size"),
    "image_height": Key(types.whole_number, "network.image_size"),
    "image_channels": _same("network.image_channels", types.whole_number),
    "num_classes": Key(
        types.whole_number, "data.classes, from [mask] rgb_map; 1 needs no setting", default=1
    ),
    **{
        name: Key(
            key.read, describe_network_key(name), "translated" if key.settings else "not supported"
        )
        for name, key in NETWORK_KEYS.items()
    },
    "learning_rate": _same("train.learning_rate", types.number),
    "clipvalue": Key(types.number, "train.clip_value", default=0.2),
    "optimizer": Key(types.choice(_OPTIMIZERS), "train.optimizer", default="adam"),
    "loss": _same("train.loss", types.choice(_LOSSES)),
    "metrics": _unused("all metrics are always computed (docs/trainer.md)"),
    "input_normalize": Key(
        types.flag,
        "train.antillia_weights, for unet without normalization; 0 to 255 always become 0..1 here",
        default=True,
    ),
    "final_activation": _unused("sigmoid for one class, softmax for several"),
    "dropout_seed_fixing": _unused("dropout always depends on run.seed"),
    "show_summary": _unused("every run writes the table of its layers, network.txt"),
    "show_history": _unused("the curves of a run are always written"),
}
_DATASET: Mapping[str, Key] = {
    "datasetclass": _unused(
        "[mask] always counts; BaseImageMaskDataset ignores it in those projects"
    ),
    "resize_interpolation": _unused("slices are resized bilinearly with antialiasing"),
    "color_order": Key(
        types.text, "train.antillia_channels; color slices are always RGB here", default="bgr"
    ),
    "image_normalize": Key(
        types.flag, "as [model] input_normalize, before the network", default=False
    ),
}
_TRAIN: Mapping[str, Key] = {
    "epochs": _same("train.epochs", types.whole_number),
    "batch_size": Key(types.whole_number, "train.batch_size; train.num_workers = 1 if it is odd"),
    "steps_per_epoch": Key(
        types.whole_number, "train.steps_per_epoch if [model] generator is True"
    ),
    "validation_steps": Key(
        types.whole_number, "train.validation_steps if [model] generator is True"
    ),
    "patience": Key(types.whole_number, "train.patience; 0: absent", default=10),
    "metrics": _unused("the curves of a run show all metrics"),
    "image_datapath": Key(types.path, _FOLDERS.format("train")),
    "mask_datapath": Key(types.path, _FOLDERS.format("train")),
    "learning_rate_reducer": Key(
        types.flag, 'train.lr_schedule: "plateau" or "constant"', default=False
    ),
    "reducer_factor": Key(types.number, "train.plateau_factor", default=0.1),
    "reducer_patience": Key(types.whole_number, "train.plateau_patience"),
    "dataset_splitter": Key(
        types.flag, 'data.layout = "unsplit" if there is neither [eval] nor [valid]', default=False
    ),
    "epoch_change_infer": Key(types.flag, "train.preview_images; False: 0"),
    "num_infer_images": Key(
        types.whole_number, "train.preview_images, of [infer] images_dir", default=1
    ),
    "epoch_change_infer_dir": _unused(f"{_RUN_FOLDER}/previews"),
    "epoch_change_tiledinfer": Key(
        types.flag, "train.preview_windows, of [tiledinfer] images_dir", default=False
    ),
    "epoch_change_tiledinfer_dir": _unused(f"{_RUN_FOLDER}/previews"),
    "model_dir": _unused(_RUN_FOLDER),
    "eval_dir": _unused(_RUN_FOLDER),
    "create_backup": _unused("a run is never overwritten: another run.name is another run"),
    "save_weights_only": _unused(
        "a bundle has the SavedModel and the weights, best_model.h5 the weights alone"
    ),
    "save_model_file": _unused("a run writes a bundle"),
    "seedreset_callback": _unused("all random numbers depend on run.seed and on the step"),
    "show_history": _unused("the curves of a run are always written"),
}


def _split(name: str) -> dict[str, Key]:
    """The keys of a section of slices."""
    return {
        "image_datapath": Key(types.path, _FOLDERS.format(name)),
        "mask_datapath": Key(types.path, _FOLDERS.format(name)),
        "output_dir": _unused("segfleet evaluate writes into the folder of the run, or --output"),
        "eval_dir": _unused(_RUN_FOLDER),
        "batch_size": _unused("segfleet evaluate BUNDLE predict.batch_size=N"),
    }


def _inference(name: str) -> dict[str, Key]:
    """The keys that [infer] and [tiledinfer] share."""
    return {
        "images_dir": _unused(_PREDICT),
        "output_dir": _unused(_PREDICT),
        "merged_dir": _unused(_OVERLAYS),
        "threshold": Key(types.number, _TILE_THRESHOLD),
        "algorithm": _unsupported("masks are binarized by predict.threshold"),
        "mask_colorize": _unused("segfleet predict --mask-format colors, for several classes"),
        "binarize": _unused(f"masks are always binary; [{name}] threshold is used"),
    }


_TILED: Mapping[str, Key] = {
    **_inference("tiledinfer"),
    "images_dir": Key(types.path, _PREVIEWS.format("tiledinfer")),
    "overlapping": Key(
        types.whole_number,
        f"predict.overlap: 0.0 or 0.5; {_EXPORTED}",
    ),
    "split_size": Key(types.whole_number, f"predict.window_size; {_EXPORTED}"),
    "bitwise_blending": Key(types.flag, f"predict.intersect_resized; {_EXPORTED}", default=True),
    "background": _unused("there are no gaps between windows"),
}
_SEGMENTATION: Mapping[str, Key] = {
    "colorize": Key(types.flag, "data.foreground_color, from white", default=False),
    "black": Key(types.color_name, "the background is black", "not applicable", "#000000"),
    "white": Key(types.color_name, "data.foreground_color if colorize is True", default="#ffffff"),
    "blursize": _unused("masks are hard; segfleet predict --probabilities writes soft ones"),
}
_IMAGE: Mapping[str, Key] = {
    "color_converter": Key(
        types.text, "data.color_space: hsv (with the full range of the hue), lab, xyz or ycrcb"
    ),
    "gamma": Key(types.number, "data.gamma; 0: none"),
    "sharpening": Key(types.number, "data.sharpening; 0: none"),
    "color_order": _unused("color slices are always RGB"),
    "file_format": _unused("the format of a slice is read from its file"),
}
_MASK: Mapping[str, Key] = {
    "binarize": Key(types.flag, "data.mask_threshold = threshold - 1 if True", default=False),
    "threshold": Key(types.number, "data.mask_threshold = threshold - 1 if binarize is True"),
    "blur": Key(types.flag, "False: none, as here; True is not supported: it enlarges the masks"),
    "blur_size": _unused("masks are not blurred"),
    "algorithm": Key(
        types.text,
        "THRESH_BINARY, THRESH_TOZERO: data.mask_threshold = threshold; THRESH_TRUNC: 0; "
        "THRESH_OTSU, THRESH_TRIANGLE: it is decided from the values of all masks",
    ),
    "grayscaling": _unused("masks are read as grey values, or as colors if there are classes"),
    "rgb_map": Key(types.color_map, "data.classes, named class_1, class_2, …"),
    "mask_file_format": _unused("the format of a mask is read from its file; .npz is not read"),
    "mask_datatype": _unused("masks are read as colors or as palette indices"),
}
_GENERATOR: Mapping[str, Key] = {
    "augmentation": Key(types.flag, "data.augment.*: False sets all probabilities to 0"),
    "debug": _unused("segfleet preview draws augmented slices"),
    "verbose": _unused("--verbose"),
    "generated_images_dir": _unused("segfleet preview draws augmented slices"),
    "generated_masks_dir": _unused("segfleet preview draws augmented slices"),
}
_AUGMENTOR: Mapping[str, Key] = {
    "hflip": Key(types.flag, "data.augment.flip_horizontal", default=True),
    "vflip": Key(types.flag, "data.augment.flip_vertical", default=True),
    "rotation": Key(
        types.flag, "data.augment.right_angles and rotation_probability, from angles", default=True
    ),
    "angles": Key(
        types.numbers,
        "data.augment.right_angles for multiples of 90; rotation_probability and rotation, the "
        "largest, for the others",
        default=(90.0, 180.0, 270.0),
    ),
    "shrinks": Key(
        types.numbers,
        _GRID.format("scale") + ", the inverse of the smallest; slices are enlarged too",
        default=(0.8,),
    ),
    "shears": Key(types.numbers, _GRID.format("shear") + ", as an angle", default=()),
    "deformation": Key(types.flag, "data.augment.elastic_probability", default=False),
    "distortion": Key(types.flag, "data.augment.grid_distortion_probability", default=False),
    "barrdistortion": Key(types.flag, "data.augment.barrel_probability", default=False),
    "pincdistortion": Key(types.flag, "data.augment.pincushion_probability", default=False),
    "sharpening": Key(types.flag, "data.augment.sharpen_probability", default=False),
    "brightening": Key(types.flag, "data.augment.brightness_probability", default=False),
}
_ELASTIC = "data.augment.elastic: the standard deviation of the displacements that result"
_FILTER = "the grid of data.augment.grid_distortion has a fixed size"
_CENTERS = f"a larger probability for each; {_CIRCLES}"

_SECTIONS: Mapping[str, Mapping[str, Key]] = {
    "model": _MODEL,
    "dataset": _DATASET,
    "train": _TRAIN,
    "eval": _split("valid"),
    "valid": _split("valid"),
    "test": _split("test"),
    "infer": {**_inference("infer"), "images_dir": Key(types.path, _PREVIEWS.format("infer"))},
    "tiledinfer": _TILED,
    "segmentation": _SEGMENTATION,
    "image": _IMAGE,
    "mask": _MASK,
    "generator": _GENERATOR,
    "augmentor": _AUGMENTOR,
    "deformation": {
        "alpha": Key(types.number, _ELASTIC, default=1300.0),
        "sigmoid": Key(types.number, _ELASTIC, default=8.0),
        "sigmoids": Key(types.numbers, _ELASTIC, default=(8.0,)),
    },
    "distortion": {
        "gaussian_filter_rsigma": _unsupported(_FILTER),
        "gaussian_filter_sigma": _unsupported(_FILTER),
        "distortions": Key(
            types.numbers,
            "data.augment.grid_distortion = 5 times the largest, because a cell is 1/5 of a side",
            default=(0.02,),
        ),
    },
    "barrdistortion": {
        "radius": _unsupported(_CIRCLES),
        "amount": Key(types.number, "data.augment.barrel", default=0.5),
        "centers": Key(types.points, _CENTERS, default=((0.5, 0.5),)),
    },
    "pincdistortion": {
        "radius": _unsupported(_CIRCLES),
        "amount": Key(types.number, "data.augment.pincushion, without sign", default=-0.5),
        "centers": Key(types.points, _CENTERS, default=((0.5, 0.5),)),
    },
    "sharpening": {"k": Key(types.number, "data.augment.sharpen = 9 k, at most 5", default=1.0)},
    "brightening": {
        "alpha": Key(types.number, "data.augment.brightness = |alpha - 1|", default=1.2),
        "beta": _unsupported("brightness is a factor"),
    },
    "debug": {"verbose": _unused("--verbose")},
}

KEYS: Mapping[KeyName, Key] = {
    (section, name): key for section, keys in _SECTIONS.items() for name, key in keys.items()
}
"""Every key by section and name."""

ALIASES: Mapping[KeyName, KeyName] = {
    # The misspelling is the one name that those projects read.
    ("deformation", "alpah"): ("deformation", "alpha"),
    ("augmentor", "transformer"): ("augmentor", "deformation"),
    ("augmentor", "alpah"): ("deformation", "alpha"),
    ("augmentor", "sigmoid"): ("deformation", "sigmoid"),
    ("dataset", "class_name"): ("dataset", "datasetclass"),
    ("tiledinfer", "overlap"): ("tiledinfer", "overlapping"),
    ("mask", "mask_colors"): ("mask", "rgb_map"),
    ("mask", "mask_datatyoe"): ("mask", "mask_datatype"),
    ("train", "epoch_changeinfer"): ("train", "epoch_change_infer"),
    ("train", "epoch_changeinfer_dir"): ("train", "epoch_change_infer_dir"),
    ("train", "epoch_change_tiled_infer"): ("train", "epoch_change_tiledinfer"),
    ("train", "epoch_change_tiled_infer_dir"): ("train", "epoch_change_tiledinfer_dir"),
    **{
        (section, f"{name}_dir"): (section, f"{name[:-1]}_datapath")
        for section in ("train", "eval", "valid", "test")
        for name in ("images", "masks")
    },
}
"""Other names of keys."""


def describe_key(name: KeyName) -> str:
    """A key as it is named in messages: [train] epochs."""
    return f"[{name[0]}] {name[1]}"


def write_literal(value: Any) -> str:
    """A default as the dialect writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(write_literal, value))}]"
    return f"{value:g}" if isinstance(value, float) else repr(value)
