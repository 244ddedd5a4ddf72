"""The complete settings: one section per table of the TOML file.

A `Config` is frozen. It is made by `contract.config.loader.load_config` or by `Config.with_values`,
both of which validate all sections, so a function that receives a section can rely on it.
docs/settings.md is generated from these classes.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, Self

from pydantic import ValidationError, create_model, field_validator, model_validator

from contract.config.antillia import ANTILLIA_SETTINGS
from contract.config.cluster import Cluster
from contract.config.data import Data
from contract.config.network import (
    NETWORKS,
    EfficientUNet,
    Network,
    NetworkUnion,
    UNet,
    check_divisible,
    encoder_weights,
    find_networks,
    network_name,
    section_classes,
)
from contract.config.predict import Predict
from contract.config.run import Run
from contract.config.section import Section, SettingValue
from contract.config.serve import Serve
from contract.config.start_from import split_digest
from contract.config.storage import Storage
from contract.config.sweep import Sweep
from contract.config.train import Train
from contract.errors import ConfigError, as_sentence

RUNTIME_KEYS = {
    "num_workers",
    "cpus_per_worker",
    "gpus_per_worker",
    "preview_images",
    "preview_source",
    "preview_windows",
    "antillia_weights",
    "antillia_channels",
    "max_failures",
    "stall_timeout_s",
}
"""Settings of [train] that determine where and how robustly training runs, not its result."""
# Settings that are tables with keys of the user.
_DICT_SETTINGS = ("sweep.space", "data.classes", "train.class_weights", "predict.class_thresholds")
# Settings of [data] that say where files are, or how masks are shown.
_EXTERNAL_KEYS = {
    "foreground_color",
    "root",
    "train_dir",
    "valid_dir",
    "test_dir",
    "images_dir",
    "masks_dir",
    "mask_pattern",
}


class Config(Section):
    """All settings, one section per table of the TOML file."""

    run: Run = Run()
    storage: Storage = Storage()
    cluster: Cluster = Cluster()
    data: Data = Data()
    network: NetworkUnion = UNet()
    train: Train = Train()
    predict: Predict = Predict()
    sweep: Sweep = Sweep()
    serve: Serve = Serve()

    @model_validator(mode="before")
    @classmethod
    def _add_network_name(cls, tree: Any) -> Any:
        """The name by which pydantic selects the class of [network]; absent: the default."""
        network = tree.get("network") if isinstance(tree, Mapping) else None
        if isinstance(network, Mapping) and "name" not in network:
            return {**tree, "network": {"name": network_name(NETWORKS[0]), **network}}
        return tree

    @field_validator("sweep")
    @classmethod
    def _validate_searched_settings(cls, sweep: Sweep) -> Sweep:
        known = setting_types()
        for key in sweep.space:
            if key not in known:
                raise ValueError(
                    f"sweep.space names {key!r}, which is not a setting{closest_match(key, known)}"
                )
            if key.startswith(("run.", "storage.", "cluster.", "sweep.", "serve.")):
                raise ValueError(
                    f"sweep.space: {key} does not change a trial and cannot be searched"
                )
        return sweep

    @model_validator(mode="after")
    def _validate_search_space_types(self) -> Self:
        for key, values in self.sweep.space.items():
            for value in values.examples():
                _check_value(key, value)
        return self

    @model_validator(mode="after")
    def _validate_sliding_window(self) -> Self:
        predict = self.predict
        if predict.sliding_window or self.train.preview_windows:
            is_own = predict.window_size is None
            check_divisible(
                "network.image_size" if is_own else "predict.window_size",
                predict.window_size or self.network.image_size,
                predict.windows_per_side,
                f"for sliding windows with predict.overlap = {predict.overlap}",
            )
            if self.data.is_cropped:
                raise ValueError(
                    "sliding windows show complete slices: remove data.crop_rows and "
                    "data.crop_columns, or predict.sliding_window and train.preview_windows"
                )
        if predict.intersect_resized and len(self.data.classes) > 1:
            raise ValueError(
                "predict.intersect_resized = true has no effect with several classes, of which "
                "each pixel has the most probable one: remove it"
            )
        return self

    @model_validator(mode="after")
    def _validate_antillia_weights(self) -> Self:
        if self.train.antillia_weights == "none":
            return self
        for key, expected in ANTILLIA_SETTINGS.items():
            section, _, name = key.partition(".")
            if getattr(getattr(self, section), name, None) != expected:
                value = "absent" if expected is None else json.dumps(expected)
                raise ValueError(
                    f"train.antillia_weights = {self.train.antillia_weights!r} needs {key} = "
                    f"{value}, as the Antillia projects have it: set train.antillia_weights = "
                    '"none" for another network'
                )
        return self

    @model_validator(mode="after")
    def _validate_initial_weights(self) -> Self:
        if self.train.start_from is not None and encoder_weights(self.network) is not None:
            raise ValueError(
                "train.start_from and network.encoder_weights both name the initial weights of the "
                "encoder: remove one of the two"
            )
        if (
            self.train.has_encoder_rate
            and isinstance(self.network, EfficientUNet)
            and self.network.trainable_encoder_layers == 0
        ):
            raise ValueError(
                "train.freeze_encoder_epochs and train.encoder_lr_factor have no effect with "
                "network.trainable_encoder_layers = 0, with which no layer of the encoder is "
                "trained: remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _validate_class_weights(self) -> Self:
        known = [each.name for each in self.data.segmentation_classes] + ["background"]
        for name in self.train.class_weights:
            if name not in known:
                raise ValueError(
                    f"train.class_weights.{name} is not a class: the names are {', '.join(known)}"
                )
        return self

    @model_validator(mode="after")
    def _validate_neighbours(self) -> Self:
        if self.data.neighbours and self.network.image_channels != 1:
            raise ValueError(
                f"data.neighbours = {self.data.neighbours} requires network.image_channels = 1, "
                f"not {self.network.image_channels}: neighbouring slices are further channels of a "
                "grey slice"
            )
        return self

    @model_validator(mode="after")
    def _validate_color_space(self) -> Self:
        window = self.data.intensity_low, self.data.intensity_high
        is_rgb = self.network.image_channels == 3 and window == (0.0, 255.0)
        if self.data.color_space != "rgb" and not is_rgb:
            raise ValueError(
                f"data.color_space = {self.data.color_space!r} needs network.image_channels = 3, "
                "data.intensity_low = 0 and data.intensity_high = 255"
            )
        return self

    @model_validator(mode="after")
    def _validate_threshold(self) -> Self:
        default = Predict.model_fields["threshold"].default
        if len(self.data.classes) > 1 and "predict.threshold" in self.sweep.space:
            raise ValueError(
                "sweep.space: predict.threshold has no effect with several classes, of which each "
                "pixel has the most probable one"
            )
        if len(self.data.classes) > 1 and self.predict.threshold != default:
            raise ValueError(
                f"predict.threshold = {self.predict.threshold} has no effect with several classes, "
                "of which each pixel has the most probable one: set predict.class_thresholds"
            )
        if self.predict.class_thresholds and len(self.data.segmentation_classes) == 1:
            raise ValueError(
                "predict.class_thresholds is for several classes: set predict.threshold"
            )
        known = [each.name for each in self.data.segmentation_classes]
        for name in self.predict.class_thresholds:
            if name not in known:
                raise ValueError(
                    f"predict.class_thresholds.{name} is not a class: the names are "
                    f"{', '.join(known)}"
                )
        return self

    @model_validator(mode="after")
    def _validate_flips(self) -> Self:
        for flip in self.predict.flips:
            if not getattr(self.data.augment, f"flip_{flip}"):
                raise ValueError(
                    f"predict.flips has {flip!r}, but the training never mirrors slices in this "
                    f"direction (data.augment.flip_{flip} = 0): remove it"
                )
        return self

    def with_values(self, values: Mapping[str, Any]) -> "Config":
        """A copy with some settings changed, validated as a whole.

        values: {"train.learning_rate": 1e-3, …}. Another "network.name" keeps the settings that
        differ from their defaults and that the other network has too, but not
        train.antillia_weights. Raises ConfigError for an unknown key or a value that does not fit.
        """
        tree = self.model_dump(mode="json")
        if (name := values.get("network.name", self.network.name)) != self.network.name:
            tree["network"] = _shared_settings(self.network, name)
            # The file of weights is of the network that was replaced.
            tree["train"]["antillia_weights"] = "none"
        for key, value in values.items():
            set_value(tree, key, value)
        return validate(tree, origin="settings")

    def training_settings(self) -> dict[str, Any]:
        """The settings that determine a trained network, as plain values.

        The locations of data and runs, colors and the distribution over machines are excluded: the
        samples of a step are the same on one worker and on eight, and so is their gradient,
        except with network.normalization = "batch", whose statistics are per worker.
        """
        tree = self.model_dump(mode="json", include={"data", "network", "train", "predict"})
        tree["data"] = {key: v for key, v in tree["data"].items() if key not in _EXTERNAL_KEYS}
        if not self.data.folds:
            # As if there were no folds: runs that were started before there were any continue.
            tree["data"] = {k: v for k, v in tree["data"].items() if k not in ("folds", "fold")}
        # A list, because the order of the classes is that of their indices.
        tree["data"]["classes"] = [list(item) for item in tree["data"]["classes"].items()]
        tree["train"] = {key: v for key, v in tree["train"].items() if key not in RUNTIME_KEYS}
        if (digest := split_digest(self.train.start_from or "")[1]) is not None:
            # The same bundle may have another address, and another bundle the same one.
            tree["train"]["start_from"] = f"sha256:{digest}"
        return {"run": {"seed": self.run.seed}, **tree}

    @property
    def input_channels(self) -> int:
        """The channels of the network's input: those of a slice and of its neighbours."""
        return self.network.image_channels * self.data.stack_size

    def fingerprint(self) -> str:
        """Twelve hex digits that identify the training settings."""
        text = json.dumps(self.training_settings(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _shared_settings(network: Network, name: str) -> dict[str, Any]:
    """The settings of a network that are not defaults, as far as another has them.

    Not those that mean something else there, or are of a file that fits one encoder only.
    """
    other = next((each for each in NETWORKS if network_name(each) == name), None)
    fields = other.model_fields if other else {}
    defaults = type(network).model_validate({}).model_dump(mode="json")
    return {
        key: value
        for key, value in network.model_dump(mode="json").items()
        if key in fields
        and value != defaults[key]
        and fields[key].annotation == type(network).model_fields[key].annotation
        and key != "encoder_weights"
    }


def check_searched_networks(config: Config) -> None:
    """ConfigError if a searched setting of [network] does not fit the networks of the trials.

    Only a sweep requires it: with settings that have a search space for one network, another one
    can be trained.
    """
    searched = config.sweep.networks
    for key, spec in config.sweep.space.items():
        section, _, name = key.partition(".")
        if section != "network" or name == "name":
            if spec.networks is not None:
                raise ConfigError(f"sweep.space: {key} does not depend on the network.")
            continue
        if spec.networks is not None and not searched:
            raise ConfigError(
                f"sweep.space: {key} names networks, but all trials have {config.network.name}: "
                "remove networks, or search network.name too."
            )
        for network in set(spec.networks or ()) - set(searched):
            raise ConfigError(
                f"sweep.space: {key} counts for {network}, but no trial has this network: they "
                f"have {', '.join(searched)} (network.name)."
            )
        having = find_networks(name)
        for network in spec.networks or searched or (config.network.name,):
            if network not in having:
                raise ConfigError(
                    f"sweep.space: {key} is not a setting of {network}: name the networks that it "
                    f"counts for, such as networks = [{json.dumps(having[0])}]."
                )


def _check_value(key: str, value: SettingValue) -> None:
    """Raise ValueError for a searched value of the wrong type.

    A value that is only incompatible with another setting is a failed trial, not an error.
    """
    path, _, name = key.rpartition(".")
    errors = []
    for section in [each for known, each in sections() if known == path]:
        if (field := section.model_fields.get(name)) is None:
            continue
        annotation: Any = field.annotation
        if key == "network.name":
            annotation = Literal[tuple(map(network_name, NETWORKS))]
        alone = create_model("Setting", __base__=Section, value=(annotation, field))
        try:
            alone.model_validate({"value": value})
        except ValidationError as error:
            errors.append(_describe_value(key, value, error.errors()[0]["msg"]))
        else:
            return
    raise ValueError(f"sweep.space: {errors[0]}")


def sections(
    model: type[Section] = Config, prefix: str = ""
) -> Iterator[tuple[str, type[Section]]]:
    """Every section as ("data.augment", Augment), in the order of the file."""
    for name, field in model.model_fields.items():
        for section in section_classes(field.annotation):
            yield prefix + name, section
            yield from sections(section, f"{prefix}{name}.")


def setting_types() -> dict[str, Any]:
    """Every setting as {"train.epochs": its annotation}, without the sections themselves."""
    return {
        f"{path}.{name}": field.annotation
        for path, section in sections()
        for name, field in section.model_fields.items()
        if not section_classes(field.annotation)
    }


def closest_match(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the known word that is closest to this one, else ""."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


def set_value(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set "section.key" of a nested dict to a value; ConfigError if there is no such setting."""
    known = setting_types()
    table = next((name for name in _DICT_SETTINGS if key.startswith(f"{name}.")), None)
    if key not in known and table is None:
        raise ConfigError(as_sentence(f"there is no setting {key!r}{closest_match(key, known)}"))
    path, last = (table, key[len(table) + 1 :]) if table else key.rsplit(".", 1)
    for part in path.split("."):
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{part} is a section of settings, not a value.")
    tree[last] = value


def validate(tree: Mapping[str, Any], origin: str) -> Config:
    """A Config from nested values, or one ConfigError that names every error.

    origin: where the values come from, for the message ("configs/demo.toml").
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        errors = "; ".join(describe_error(details) for details in error.errors())
        raise ConfigError(as_sentence(f"{origin}: {errors}")) from error


def describe_error(details: Any) -> str:
    """One clause for one of pydantic's errors: the key, the value, what was expected."""
    location = details["loc"]
    if details["type"] == "union_tag_invalid":
        known = [network_name(each) for each in NETWORKS]
        name = details["ctx"]["tag"]
        return (
            f"network.name = {name!r} is not one of the networks {', '.join(known)}"
            f"{closest_match(name, known)}"
        )
    # The class of a union that pydantic selected is not part of the key.
    network = location[1] if location[:1] == ("network",) and len(location) > 1 else None
    key = ".".join(str(part) for part in location if part is not network)
    if details["type"] == "extra_forbidden" and network and (others := find_networks(location[2])):
        return f"{key} is not a setting of {network}, but of {', '.join(others)}"
    if details["type"] == "extra_forbidden":
        known = [*setting_types(), *(name for name, _ in sections())]
        return f"there is no setting {key}{closest_match(key, known)}"
    if details["type"] == "value_error":
        text = str(details["ctx"]["error"])
        return text if not key or key.split(".")[0] in text else f"{key}: {text}"
    return _describe_value(key, details["input"], details["msg"])


def _describe_value(key: str, value: Any, message: str) -> str:
    """The clause "train.epochs = 0 must be …" for pydantic's message "Input should be …"."""
    requirement, count = re.subn(r"^\w+ should ", "must ", message)
    if count:
        return f"{key} = {value!r} {requirement}"
    return f"{key} = {value!r}: {message[:1].lower()}{message[1:]}"
