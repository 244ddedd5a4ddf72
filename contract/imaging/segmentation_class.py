"""The classes that a network distinguishes, and the colors that show them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

MaskFormat = Literal["indices", "values", "colors"]
"""How a mask is written (contract.imaging.encode.encode_mask)."""

VolumeFormat = Literal["nifti", "dicom-seg"]
"""How the mask of a volume is written."""

FOREGROUND = "foreground"
"""The name of the class of masks that have only foreground and background."""

BACKGROUND_VALUE, BACKGROUND_COLOR = 0, (0, 0, 0)

# The palette of Okabe and Ito (2008), which people with the common kinds of color blindness can
# distinguish; its black is the background.
_PALETTE: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_FOREGROUND_COLOR = (255, 64, 32)


@dataclass(frozen=True)
class SegmentationClass:
    """One class of foreground.

    Attributes:
        name: Its name in tables and responses.
        value: What marks it in a mask: a grey value (or palette index), or a color; None: every
            value above a threshold.
        color: The color in which overlays and the page show it.
    """

    name: str
    value: int | Color | None
    color: Color


def single_foreground(color: Color | None = None) -> tuple[SegmentationClass, ...]:
    """The only class of masks that have foreground above a threshold; color: absent: orange."""
    return (SegmentationClass(FOREGROUND, None, color or _FOREGROUND_COLOR),)


def create_classes(values: Mapping[str, int | Color]) -> tuple[SegmentationClass, ...]:
    """Classes by name, in this order; those marked by a grey value get a color of their own."""
    colors = _distinct_colors()
    return tuple(
        SegmentationClass(name, value, next(colors) if isinstance(value, int) else value)
        for name, value in values.items()
    )


def _distinct_colors() -> Iterator[Color]:
    """The palette, then its colors at a lower brightness, and so on."""
    brightness = 1.0
    while True:
        for red, green, blue in _PALETTE:
            yield round(red * brightness), round(green * brightness), round(blue * brightness)
        brightness *= 0.75
