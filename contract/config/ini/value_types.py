"""What a value must be: functions that check a literal and return it in one form.

Each raises ValueError with a clause that follows the value: "must be a whole number".
"""

from collections.abc import Callable, Mapping
from typing import Any

Reader = Callable[[Any], Any]
# No setting is larger, and Python refuses to write integers of thousands of digits.
_LARGEST = 10**12


def anything(value: Any) -> Any:
    """Any literal: the value of a key that is not translated."""
    return value


def flag(value: Any) -> bool:
    """True or False, also as 1 or 0."""
    if value in (0, 1) and isinstance(value, int):
        return bool(value)
    raise ValueError("must be True or False")


def whole_number(value: Any) -> int:
    """A whole number."""
    if type(value) is not int or abs(value) > _LARGEST:
        raise ValueError("must be a whole number")
    return value


def number(value: Any) -> float:
    """A finite number."""
    # False for NaN.
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise ValueError("must be a number")
    return float(value)


def text(value: Any) -> str:
    """Text in quotes."""
    if not isinstance(value, str):
        raise ValueError("must be text in quotes")
    return value


def path(value: Any) -> str:
    """A path, with slashes; backslashes are those of Windows."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be a path in quotes, with slashes")
    return value.strip().replace("\\", "/")


def pair(value: Any) -> int:
    """One whole number for height and width: (3, 3) or 3."""
    sides = list(value) if isinstance(value, tuple | list) else [value] * 2
    if len(sides) != 2 or type(sides[0]) is not int or sides[0] != sides[1]:
        raise ValueError("must be two equal whole numbers such as (3,3)")
    return whole_number(sides[0])


def numbers(value: Any) -> tuple[float, ...]:
    """A list of numbers."""
    try:
        return tuple(number(each) for each in _as_items(value))
    except ValueError as error:
        raise ValueError("must be a list of numbers") from error


def points(value: Any) -> tuple[tuple[float, ...], ...]:
    """A list of points (x, y)."""
    items = _as_items(value)
    if not all(isinstance(each, tuple | list) and len(each) == 2 for each in items):
        raise ValueError("must be a list of points such as [(0.5, 0.5)]")
    return tuple(numbers(each) for each in items)


def color_map(value: Any) -> dict[str, int]:
    """The index of each color, as {"#00ff00": 1}, from {(0, 255, 0): 1}."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError("must be a dict such as {(0,0,0):0, (0,255,0):1}")
    result = {_color(color): whole_number(index) for color, index in value.items()}
    if result.get("#000000", 0) or list(result.values()).count(0) > ("#000000" in result):
        raise ValueError("must have index 0, the background, for black")
    if len(set(result.values())) < len(result):
        raise ValueError("must have another index for each color")
    return result


def color_name(value: Any) -> str:
    """The name of a color, or three channels, as "#00ff00"."""
    from PIL import ImageColor

    if not isinstance(value, str):
        return _color(value)
    try:
        # Without the alpha channel.
        return "#" + bytes(ImageColor.getrgb(value.strip())[:3]).hex()
    except ValueError as error:
        raise ValueError('must be the name of a color, such as "green"') from error


def choice(known: Mapping[str, str]) -> Reader:
    """A reader of one of the known names, in upper or lower case, that returns its translation."""
    by_lower = {name.lower(): translation for name, translation in known.items()}

    def read(value: Any) -> str:
        if not isinstance(value, str) or value.strip().lower() not in by_lower:
            raise ValueError(f"must be one of {', '.join(known)}, in quotes")
        return by_lower[value.strip().lower()]

    return read


def _color(value: Any) -> str:
    channels = list(value) if isinstance(value, tuple | list) else []
    if len(channels) != 3 or any(type(each) is not int for each in channels):
        raise ValueError("must have colors such as (0,255,0)")
    if not all(0 <= each <= 255 for each in channels):
        raise ValueError("must have colors from 0 to 255")
    return "#" + bytes(channels).hex()


def _as_items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
