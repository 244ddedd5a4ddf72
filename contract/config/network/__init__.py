"""The section [network]: a union of one section class per network, discriminated by name.

A new network is a section class here and an entry in NETWORKS; its name is the value of its field
`name`. A key that a network does not have is an unknown key.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, get_args, get_origin

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


def check_divisible(image_size: int | tuple[int, int], step: int, reason: str) -> None:
    """ValueError for network.image_size if a side is not divisible by a number of pixels.

    reason: follows the number in the message.
    """
    for name, side in zip(_SIDES, image_sides(image_size), strict=True):
        if side % step == 0:
            continue
        smaller = max(side // step, 1) * step
        rule = f"must be divisible by {step} {reason}: use {smaller} or {smaller + step}"
        if isinstance(image_size, int):
            raise ValueError(f"network.image_size = {side} {rule}")
        raise ValueError(f"network.image_size = {list(image_size)}: the {name} {side} {rule}")


class UNet(Section):
    """The network that maps a slice to the probability of each class."""

    name: Literal["unet"] = "unet"
    """Which network; unet is the flexible UNet (Ronneberger 2015)."""
    image_size: ImageSize = 128
    """Height and width that slices are resized to: one number for both, or [height, width]; each
    divisible by 2^(num_layers-1)."""
    image_channels: Literal[1, 3] = 1
    """1: grey; 3: RGB. Other slices are converted."""
    base_filters: Annotated[int, Field(ge=1, le=512)] = 16
    """Filters of the first level; they double with each level."""
    max_filters: Annotated[int, Field(ge=1)] | None = None
    """Cap on the filters of a level; absent: none."""
    base_kernels: Annotated[int, Field(ge=1, le=31)] = 3
    """Kernel size of the first level; it shrinks by 2 with each level down to 3. Odd."""
    num_layers: Annotated[int, Field(ge=2, le=10)] = 5
    """Levels of the UNet, the deepest included."""
    dilation: Annotated[int, Field(ge=1, le=16)] = 1
    """Dilation of the first level; it shrinks by 1 with each level down to 1."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """The dropout rate of a level is this times its index (0 for the first), at most 0.5."""
    normalization: Literal["none", "batch", "sync_batch", "group"] = "group"
    """batch: statistics per worker; sync_batch: over all workers; group: per sample."""
    activation: Literal["relu", "leaky_relu", "elu", "mish", "silu"] = "relu"
    """Activation after each convolution."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        step = 2 ** (self.num_layers - 1)
        reason = f"(2^(num_layers-1) with network.num_layers = {self.num_layers})"
        check_divisible(self.image_size, step, reason)
        if self.base_kernels % 2 == 0:
            raise ValueError(f"network.base_kernels = {self.base_kernels} must be odd")
        return self

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return image_sides(self.image_size)


NETWORKS: tuple[type[Section], ...] = (UNet,)
"""The section class of every network."""


def discriminated_union(members: tuple[type[Section], ...]) -> Any:
    """The annotation of a section that is one of several classes, discriminated by their `name`.

    pydantic rejects a discriminator for a single class, so that one stands for itself.
    """
    if len(members) == 1:
        return members[0]
    return Annotated[Union[members], Field(discriminator="name")]  # noqa: UP007


def section_classes(annotation: Any) -> tuple[type[Section], ...]:
    """The section classes of a field's annotation: one, those of a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    if get_origin(annotation) is Union:
        members = get_args(annotation)
        if all(isinstance(member, type) and issubclass(member, Section) for member in members):
            return members
    return ()


if TYPE_CHECKING:
    Network = UNet
else:
    Network = discriminated_union(NETWORKS)
