"""Translation of the augmentation.

Those projects make one copy of a slice for each variant (a flip, an angle, a center, …) and draw a
batch from all copies. The probability of an augmentation here is the fraction of its copies.
"""

from collections.abc import Iterator, Mapping
from math import atan, degrees, pi, sqrt
from typing import Any

from contract.config.data import Augment
from contract.config.ini.outcome import Outcome, Values

_CELLS = 5
"""Cells of data.augment.grid_distortion along a side."""
_LIMITS = {"scale": 3.0, "shear": 45.0, "elastic": 0.2, "grid_distortion": 0.99, "sharpen": 5.0}
_LIMITS |= {"barrel": 1.0, "pincushion": 0.99, "brightness": 0.99, "rotation": 180.0}

# The key that switches each augmentation on.
_SWITCHES = {
    "flip_horizontal": "hflip",
    "flip_vertical": "vflip",
    "right_angles": "angles",
    "rotation_probability": "angles",
    "scale_probability": "shrinks",
    "shear_probability": "shears",
    "elastic_probability": "deformation",
    "grid_distortion_probability": "distortion",
    "barrel_probability": "barrdistortion",
    "pincushion_probability": "pincdistortion",
    "sharpen_probability": "sharpening",
    "brightness_probability": "brightening",
}
# The keys with the details of each augmentation.
_DETAILS = {
    "elastic": ("deformation", ("alpha", "sigmoid", "sigmoids")),
    "grid_distortion": ("distortion", ("distortions",)),
    "barrel": ("barrdistortion", ("amount", "centers")),
    "pincushion": ("pincdistortion", ("amount", "centers")),
    "sharpen": ("sharpening", ("k",)),
    "brightness": ("brightening", ("alpha",)),
}


def translate_augmentation(values: Values) -> Iterator[Outcome]:
    """The settings of [data.augment]."""
    is_on = is_augmented(values)
    copies = _count_copies(values) if is_on else {}
    total = sum(copies.values()) + 1
    probabilities = {name: round(copies.get(name, 0) / total, 4) for name in _probability_names()}
    ranges = {name: value for name, value in _ranges(values).items() if _is_used(name, copies)}
    switch = ("model", "generator")
    unused = {name: value for name, value in probabilities.items() if not value}
    text = "" if is_on else "there is no augmentation"
    yield Outcome(switch, _augment(_without_defaults(unused)), text=text)
    if values.has("generator", "augmentation"):
        yield Outcome(("generator", "augmentation"), text=text or "as [model] generator")
    if is_on:
        yield from _translate_switches(values, probabilities, ranges)
        yield from _translate_details(values, ranges)
    else:
        sections = {"augmentor", *(section for section, _ in _DETAILS.values())}
        yield from _name_unused(values, sections, text)


def is_augmented(values: Values) -> bool:
    """Whether training slices are augmented.

    Older files have no [model] generator: the script that was started decided it.
    """
    augmentation = values.given.get(("generator", "augmentation"))
    if not values.has("model", "generator"):
        return augmentation is True
    return values.get("model", "generator") and augmentation is not False


def _probability_names() -> list[str]:
    plain = ("flip_horizontal", "flip_vertical", "right_angles")
    return [name for name in Augment.model_fields if name in plain or name.endswith("_probability")]


def _count_copies(values: Values) -> dict[str, int]:
    """How many copies of a slice each augmentation makes, besides the slice itself."""

    def get(key: str) -> Any:
        return values.get("augmentor", key)

    def count(key: str, items: Any) -> int:
        return len(items) if get(key) else 0

    angles = get("angles") if get("rotation") else ()
    right = [angle for angle in angles if angle % 90 == 0]
    # Each sheared copy is flipped, too.
    flips = (1 + get("hflip")) * (1 + get("vflip"))
    return {
        "unchanged": len([angle for angle in angles if angle % 360 == 0]),
        "flip_horizontal": int(get("hflip")),
        "flip_vertical": int(get("vflip")),
        "right_angles": len([angle for angle in right if angle % 360]),
        "rotation_probability": len(angles) - len(right),
        "scale_probability": len(get("shrinks")),
        "shear_probability": len(get("shears")) * flips,
        "elastic_probability": count("deformation", _sigmas(values)),
        "grid_distortion_probability": count("distortion", values.get("distortion", "distortions")),
        "barrel_probability": count("barrdistortion", values.get("barrdistortion", "centers")),
        "pincushion_probability": count("pincdistortion", values.get("pincdistortion", "centers")),
        "sharpen_probability": int(get("sharpening")),
        "brightness_probability": int(get("brightening")),
    }


def _ranges(values: Values) -> dict[str, float]:
    """The range of each augmentation, within its limit."""
    angles = [(angle + 180) % 360 - 180 for angle in values.get("augmentor", "angles")]
    shrinks = [max(each, 1 / each) for each in values.get("augmentor", "shrinks") if each > 0]
    shears = [degrees(atan(abs(each))) for each in values.get("augmentor", "shears")]
    distortions = [abs(each) for each in values.get("distortion", "distortions")]
    ranges = {
        "rotation": max((abs(each) for each in angles if each % 90), default=0.0),
        "scale": max(shrinks, default=1.0),
        "shear": max(shears, default=0.0),
        "elastic": _elastic_deviation(values),
        "grid_distortion": max(distortions, default=0.0) * _CELLS,
        "barrel": abs(values.get("barrdistortion", "amount")),
        "pincushion": abs(values.get("pincdistortion", "amount")),
        # The kernel is the slice plus 9 k times its difference from the mean of 3 x 3 pixels.
        "sharpen": abs(9.0 * values.get("sharpening", "k")),
        "brightness": abs(values.get("brightening", "alpha") - 1.0),
    }
    return {name: round(min(value, _LIMITS[name]), 4) for name, value in ranges.items()}


def _sigmas(values: Values) -> tuple[float, ...]:
    """The standard deviations of the filter of an elastic deformation, in pixels."""
    is_single = values.has("deformation", "sigmoid") and not values.has("deformation", "sigmoids")
    sigmas = values.get("deformation", "sigmoids")
    return (values.get("deformation", "sigmoid"),) if is_single or not sigmas else sigmas


def _elastic_deviation(values: Values) -> float:
    """The standard deviation of the displacements, as a fraction of the shorter side.

    They are noise from -1 to 1 on rows, columns and channels, which a Gaussian filter smooths along
    all three, times alpha. The channels are few: outside of them the filter meets zeros.
    """
    sides = [values.get("model", f"image_{name}") for name in ("height", "width")]
    side = min((each for each in sides if each and each > 0), default=512)
    channels = max(values.get("model", "image_channels") or 3, 1)
    # A filter narrower than this does not smooth the noise.
    sigma = max(min(map(abs, _sigmas(values))), 0.5)
    smoothed = 1 / (2 * sigma * sqrt(pi)) * min(sqrt(channels) / (sigma * sqrt(2 * pi)), 1.0)
    return abs(values.get("deformation", "alpha")) * smoothed / sqrt(3) / side


def _translate_switches(
    values: Values, probabilities: Mapping[str, float], ranges: Mapping[str, float]
) -> Iterator[Outcome]:
    for key in dict.fromkeys(_SWITCHES.values()):
        names = [name for name, switch in _SWITCHES.items() if switch == key]
        settings: dict[str, Any] = {name: probabilities[name] for name in names}
        for name in names:
            target = name.removesuffix("_probability")
            if target in ranges and target not in _DETAILS:
                settings[target] = ranges[target]
        used = {name: value for name, value in settings.items() if value}
        yield Outcome(("augmentor", key), _augment(used), text="" if used else "is off")
    if values.has("augmentor", "rotation"):
        yield Outcome(("augmentor", "rotation"), text="by angles")


def _translate_details(values: Values, ranges: Mapping[str, float]) -> Iterator[Outcome]:
    for target, (section, keys) in _DETAILS.items():
        if target in ranges:
            given = [key for key in keys if values.has(section, key)]
            for key in given or keys[:1]:
                yield Outcome((section, key), _augment({target: ranges[target]}))
        else:
            yield from _name_unused(values, {section}, "this augmentation is off")


def _name_unused(values: Values, sections: set[str], text: str) -> Iterator[Outcome]:
    for name in values.given:
        if name[0] in sections:
            yield Outcome(name, status="not applicable", text=text)


def _is_used(name: str, copies: Mapping[str, int]) -> bool:
    return copies.get(f"{name}_probability", 0) > 0


def _without_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    fields = Augment.model_fields
    return {name: value for name, value in settings.items() if value != fields[name].default}


def _augment(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"data.augment.{name}": value for name, value in settings.items()}
