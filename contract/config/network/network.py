"""What the sections of all networks have: the size and the channels of the input."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from contract.config.section import Section

_MIN_SIDE, _MAX_SIDE = 16, 2048
_SIDES = ("height", "width")


def _check_image_size(value: Any) -> Any:
    """One number, or (height, width) where they differ: 128 and [128, 128] are the same setting."""
    sides = list(value) if isinstance(value, list | tuple) else [value] * 2
    if len(sides) != 2 or any(type(side) is not int for side in sides):
        raise PydanticCustomError(
            "image_size", "must be one whole number of pixels, or [height, width]"
        )
    for name, side in zip(_SIDES, sides, strict=True):
        if not _MIN_SIDE <= side <= _MAX_SIDE:
            raise PydanticCustomError(
                "image_size",
                "{subject}must be at least {low} and at most {high}",
                {
                    "subject": "" if sides[0] == sides[1] else f"the {name} ",
                    "low": _MIN_SIDE,
                    "high": _MAX_SIDE,
                },
            )
    return sides[0] if sides[0] == sides[1] else tuple(sides)


Side = Annotated[int, Field(ge=_MIN_SIDE, le=_MAX_SIDE)]
ImageSize = Annotated[
    Side
    | Annotated[
        tuple[Side, Side], Field(strict=False, json_schema_extra={"title": "[height, width]"})
    ],
    BeforeValidator(_check_image_size),
]
"""Height and width in pixels: one number if they are equal."""


def image_sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image size."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def check_divisible(key: str, size: int | tuple[int, int], step: int, reason: str) -> None:
    """ValueError if a side of a size is not divisible by a number of pixels.

    key: the setting that the message names. reason: follows the number in the message.
    """
    for name, side in zip(_SIDES, image_sides(size), strict=True):
        if side % step == 0:
            continue
        smaller = max(side // step, 1) * step
        rule = f"must be divisible by {step} {reason}: use {smaller} or {smaller + step}"
        if isinstance(size, int):
            raise ValueError(f"{key} = {side} {rule}")
        raise ValueError(f"{key} = {list(size)}: the {name} {side} {rule}")


class Network(Section):
    """The settings that every network has. A subclass is one network."""

    # Any, because each network has a literal type of its own.
    name: Any
    """Which network: its name."""
    image_size: ImageSize = 128
    """Height and width that slices are resized to: one number for both, or [height, width]. A
    network pads them with zeros, and crops its output, if its levels need another size."""
    image_channels: Literal[1, 3] = 1
    """1: grey; 3: RGB. Other slices are converted."""

    @model_validator(mode="after")
    def _check_sides(self) -> Self:
        smallest = min(self.image_shape)
        if smallest < self.size_multiple:
            raise ValueError(
                f"network.image_size must be at least {self.size_multiple} pixels"
                f"{self.size_reason}, not {smallest}"
            )
        return self

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return image_sides(self.image_size)

    @property
    def size_multiple(self) -> int:
        """The number of pixels by which the sides of the padded input are divisible."""
        return 1

    @property
    def size_reason(self) -> str:
        """Which settings determine size_multiple, in words that follow the number, or ""."""
        return ""


class LevelNetwork(Network):
    """The settings of a network whose number of levels is a setting."""

    num_layers: Annotated[int, Field(ge=2, le=10)] = 5
    """Levels of the network, the deepest included."""

    @property
    def size_multiple(self) -> int:
        """Each level but the first halves the sides."""
        return 2 ** (self.num_layers - 1)

    @property
    def size_reason(self) -> str:
        """The levels."""
        return f" (2^(num_layers-1) with network.num_layers = {self.num_layers})"
