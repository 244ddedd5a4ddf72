"""Translation of [model]: which network, its settings and its input."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError, create_model

from contract.config.ini.network_keys import NETWORK_KEYS, NETWORK_NAMES
from contract.config.ini.outcome import Outcome, TranslationError, Values
from contract.config.network import NETWORKS, Network, find_networks, network_name
from contract.config.section import Section

# TensorflowEfficientNetB7UNet is one network with a fixed encoder.
_B7_SETTINGS = {"variant": "b7", "trainable_encoder_layers": 61}


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
    settings: dict[str, Any] = {"network.name": name}
    if "B7" in class_name:
        settings |= {
            f"network.{key}": value
            for key, value in _B7_SETTINGS.items()
            if key in section.model_fields
        }
    yield Outcome(("model", "model"), settings)
    yield from _translate_image_size(values)
    for key in NETWORK_KEYS:
        if values.has("model", key):
            yield _translate_key(section, key, values.get("model", key))
    if name == "unet" and not values.has("model", "normalization"):
        yield Outcome(("model", "normalization"), {"network.normalization": "none"})


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


def _translate_key(section: type[Network], key: str, value: Any) -> Outcome:
    """The setting of the network that takes a key, if it has one."""
    name = next((each for each in NETWORK_KEYS[key][1] if each in section.model_fields), None)
    if name is None:
        others = find_networks(NETWORK_KEYS[key][1][0])
        hint = f", but of {', '.join(others)}" if others else ""
        text = f"not a setting of {network_name(section)}{hint}"
        return Outcome(("model", key), status="not applicable", text=text)
    if key == "normalization":
        value = "batch" if value else "none"
    if key == "efficientnet":
        value = value.lower()
    return Outcome(("model", key), {f"network.{name}": _fit_value(section, name, value)})


def _fit_value(section: type[Section], name: str, value: Any) -> Any:
    """The spelling of a value that the setting accepts: 4, [4, 4] or (4, 4) for a pair.

    A value that does not fit in any way is unchanged, and an error of the complete settings.
    """
    items = list(value) if isinstance(value, tuple | list) else [value, value]
    is_uniform = bool(items) and all(each == items[0] for each in items)
    field = section.model_fields[name]
    annotation: Any = field.annotation
    alone = create_model("Setting", __base__=Section, value=(annotation, field))
    for candidate in [value, items, *items[:1]] if is_uniform else [value, items]:
        try:
            alone.model_validate({"value": candidate})
        except ValidationError:
            continue
        return candidate
    return value
