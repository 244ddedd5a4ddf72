"""Translation of [model]: which network, its settings and its input."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError, create_model

from contract.config.antillia import ANTILLIA_SETTINGS
from contract.config.ini.network_keys import ACTIVE_KEYS, NETWORK_KEYS, NETWORK_NAMES
from contract.config.ini.outcome import Outcome, TranslationError, Values
from contract.config.network import NETWORKS, Network, find_networks, network_name
from contract.config.section import Section

# Blocks of a level and levels of TensorflowSwinUNet, if they are not given.
_BLOCKS, _LEVELS, _MAX_LEVELS = 2, 4, 16
# The layers of its fixed encoder that TensorflowEfficientNetB7UNet trains.
_B7_LAYERS = 61
# The converters of OpenCV's color spaces whose channels are those of data.color_space.
_EXACT_CONVERTER = re.compile(r"(cv2\.)?COLOR_BGR2(HSV_FULL|LAB|XYZ|YCR_?CB)", re.IGNORECASE)
_DIVISIONS = ("raw", "normalized", "normalized_twice")
_B7_TEXT = (
    "there the encoder has ImageNet weights, and its last 61 layers are trained; here all are, "
    "unless network.encoder_weights names a file with those weights"
)


def translate_network(values: Values, overrides: Mapping[str, Any]) -> Iterator[Outcome]:
    """The settings of [network]; TranslationError if this version does not have the network."""
    class_name = values.get("model", "model")
    name = str(overrides.get("network.name") or NETWORK_NAMES[class_name])
    section = _find_section(name)
    if section is None:
        raise TranslationError(
            ("model", "model"),
            f"is the network {name}, which this version does not have: set network.name to one of "
            + ", ".join(map(network_name, NETWORKS)),
        )
    yield _translate_name(name, class_name, overrides)
    yield from _translate_image_size(values)
    used: dict[str, tuple[str, Any]] = {}
    for key in (each for each in NETWORK_KEYS if values.has("model", each)):
        outcome = _translate_key(section, key, values)
        for setting, value in outcome.settings.items():
            first, first_value = used.setdefault(setting, (key, value))
            if first_value != value:
                text = f"{first} is used"
                outcome = Outcome(outcome.name, status="not applicable", text=text)
        yield outcome
    if name == "unet" and not values.has("model", "normalization"):
        yield Outcome(("model", "normalization"), {"network.normalization": "none"})
    yield from _translate_input(name, values, overrides)


def _translate_input(name: str, values: Values, overrides: Mapping[str, Any]) -> Iterator[Outcome]:
    """What the network there does with its input, which matters for the weights of a UNet.

    The slices are in 0..255; image_normalize and input_normalize each divide them by 255.
    """
    keys = ("model", "input_normalize"), ("dataset", "image_normalize"), ("dataset", "color_order")
    normalization = "batch" if values.get("model", "normalization") else "none"
    given = {"network.name": name, "network.normalization": normalization, **overrides}
    reason = ""
    if any(given.get(key, expected) != expected for key, expected in ANTILLIA_SETTINGS.items()):
        reason = "counts for unet without normalization; 0 to 255 always become 0..1 here"
    elif not _has_same_input(values):
        reason = "the network there has another input or output than ours"
    if reason:
        for key in keys:
            if values.has(*key):
                yield Outcome(key, status="not applicable", text=reason)
        return
    divisions = values.get(*keys[0]) + values.get(*keys[1])
    order = "rgb" if str(values.get(*keys[2])).lower() == "rgb" else "bgr"
    settings = {
        "train.antillia_weights": _DIVISIONS[divisions],
        "train.antillia_channels": order,
    }
    yield Outcome(keys[0], settings)
    for key in keys[1:]:
        if values.has(*key):
            yield Outcome(key, settings)


def _has_same_input(values: Values) -> bool:
    """Whether the network there gets the channels, and has the activation, of ours."""
    converter = values.get("image", "color_converter")
    if converter and not _EXACT_CONVERTER.fullmatch(str(converter)):
        return False
    activation = values.get("model", "final_activation") or "sigmoid"
    expected = "sigmoid" if values.get("model", "num_classes") == 1 else "softmax"
    return str(activation).lower() == expected


def _translate_name(name: str, class_name: str, overrides: Mapping[str, Any]) -> Outcome:
    settings: dict[str, Any] = {"network.name": name}
    if name != "efficient_unet" or "B7" not in class_name:
        return Outcome(("model", "model"), settings)
    settings["network.variant"] = "b7"
    # Layers with random weights must not be frozen.
    if overrides.get("network.encoder_weights"):
        settings["network.trainable_encoder_layers"] = _B7_LAYERS
    return Outcome(("model", "model"), settings, text=_B7_TEXT)


def _find_section(name: str) -> type[Network] | None:
    return next((each for each in NETWORKS if network_name(each) == name), None)


def _translate_image_size(values: Values) -> Iterator[Outcome]:
    height, width = (values.get("model", f"image_{side}") for side in ("height", "width"))
    if height is None and width is None:
        return
    height, width = height or width, width or height
    size = {"network.image_size": height if height == width else [height, width]}
    for key in ("image_width", "image_height"):
        if values.has("model", key):
            yield Outcome(("model", key), size)


def _translate_key(section: type[Network], key: str, values: Values) -> Outcome:
    """The setting of the network that takes a key, or why there is none."""
    name, network = ("model", key), network_name(section)
    if key not in ACTIVE_KEYS.get(network, NETWORK_KEYS):
        text = f"no effect on {network} there"
        return Outcome(name, status="not applicable", text=text)
    candidates = NETWORK_KEYS[key].settings
    setting = next((each for each in candidates if each in section.model_fields), None)
    if setting is None:
        text = NETWORK_KEYS[key].without or _describe_others(network, candidates)
        return Outcome(name, status="not supported", text=text)
    value = _convert(setting, key, values)
    fitted = _fit_value(section, setting, value)
    if fitted is None:
        text = f"network.{setting} has another form: set it instead of {value!r:.60}"
        return Outcome(name, status="not supported", text=text)
    return Outcome(name, {f"network.{setting}": fitted})


def _describe_others(network: str, settings: tuple[str, ...]) -> str:
    others = dict.fromkeys(each for setting in settings for each in find_networks(setting))
    return f"not a setting of {network}" + (f", but of {', '.join(others)}" if others else "")


def _convert(setting: str, key: str, values: Values) -> Any:
    """The value of a key in the meaning of its setting."""
    value = values.get("model", key)
    if setting == "normalization":
        return "batch" if value else "none"
    if setting == "variant":
        return value.lower()
    if setting == "depths":
        # The same number of blocks at each level.
        blocks, levels = (values.get("model", name) for name in ("stack_num_down", "depth"))
        return [blocks or _BLOCKS] * min(levels or _LEVELS, _MAX_LEVELS)
    return value


def _fit_value(section: type[Section], name: str, value: Any) -> Any:
    """The spelling of a value that the setting accepts: 4 or [4, 4] for a pair.

    None for a list that the setting does not accept. Another value is unchanged: whether it is
    within its limits is checked with all settings.
    """
    items = list(value) if isinstance(value, tuple | list) else [value, value]
    field = section.model_fields[name]
    annotation: Any = field.annotation
    alone = create_model("Setting", __base__=Section, value=(annotation, field))
    is_uniform = bool(items) and all(each == items[0] for each in items)
    for candidate in [value, items, *items[: int(is_uniform)]]:
        try:
            alone.model_validate({"value": candidate})
        except ValidationError:
            continue
        return candidate
    return None if isinstance(value, tuple | list) else value
