"""The forms that a value may have."""

from typing import Any

import pytest

from contract.config.ini import value_types as types


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (types.flag, 1, True),
        (types.number, 3, 3.0),
        (types.path, " a\\b/ ", "a/b/"),
        (types.pair, (3, 3), 3),
        (types.pair, 5, 5),
        (types.numbers, 0.8, (0.8,)),
        (types.numbers, [90, 0.5], (90.0, 0.5)),
        (types.points, [(0.3, 0.7)], ((0.3, 0.7),)),
        (types.color_map, {(0, 0, 0): 0, (0, 255, 0): 1}, {"#000000": 0, "#00ff00": 1}),
        (types.color_map, {(1, 2, 3): 4}, {"#010203": 4}),
        (types.color_name, "green", "#008000"),
        (types.color_name, " Red ", "#ff0000"),
        (types.color_name, (0, 255, 16), "#00ff10"),
        (types.choice({"Adam": "adam"}), " ADAM", "adam"),
    ],
)
def test_forms(read: types.Reader, value: Any, expected: Any) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (types.flag, 2, "must be True or False"),
        (types.flag, [], "must be True or False"),
        (types.whole_number, True, "must be a whole number"),
        (types.whole_number, 10**400, "must be a whole number"),
        (types.number, float("nan"), "must be a number"),
        (types.number, 10**400, "must be a number"),
        (types.text, 3, "must be text in quotes"),
        (types.path, "..\train", "must be a path in quotes"),
        (types.pair, (3, 5), "must be two equal whole numbers"),
        (types.numbers, ["a"], "must be a list of numbers"),
        (types.points, [1], "must be a list of points"),
        (types.color_map, {}, "must be a dict"),
        (types.color_map, {"green": 1}, "must have colors such as"),
        (types.color_map, {(0, 0, 256): 1}, "must have colors from 0 to 255"),
        (types.color_map, {(0, 0, 0): 1}, "must have index 0, the background, for black"),
        (types.color_map, {(9, 9, 9): 0}, "must have index 0, the background, for black"),
        (types.color_map, {(1, 1, 1): 1, (2, 2, 2): 1}, "must have another index for each color"),
        (types.color_name, "greenish", "must be the name of a color"),
        (types.color_name, 3, "must have colors such as"),
        (types.choice({"Adam": "adam"}), "RMSprop", "must be one of Adam, in quotes"),
    ],
)
def test_other_forms_are_errors(read: types.Reader, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(value)
