"""What all sections have in common: they are frozen, strict, and know their keys."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from contract.config.section import Finite, Fraction, Interval, Name, Section


class Example(Section):
    """A section with every shared type."""

    name: Name = "a"
    """A name."""
    count: int = 1
    """A whole number."""
    fraction: Fraction = 0.5
    """A fraction."""
    limit: Finite = 0.0
    """A finite number."""
    interval: Interval = (0.0, 1.0)
    """Two numbers."""


class WrongDefault(Section):
    """A section whose default is not valid."""

    fraction: Fraction = 2.0
    """A fraction."""


def test_nothing_can_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().count = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_the_docstring_of_a_setting_is_its_description() -> None:
    assert Example.model_fields["count"].description == "A whole number."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "3"}, "valid integer"),
        ({"count": True}, "valid integer"),
        ({"count": 3.0}, "valid integer"),
        ({"counts": 3}, "Extra inputs are not permitted"),
        ({"fraction": 1.1}, "less than or equal to 1"),
        ({"limit": math.inf}, "finite number"),
        ({"limit": math.nan}, "finite number"),
        ({"interval": [1.0]}, "Field required"),
        ({"name": ""}, "should match pattern"),
        ({"name": "a/b"}, "should match pattern"),
        ({"name": ".a"}, "should match pattern"),
        ({"name": "a" * 81}, "at most 80 characters"),
    ],
)
def test_other_values_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Example.model_validate(values)


def test_a_list_of_toml_is_an_interval() -> None:
    assert Example.model_validate({"interval": [1, 2.5]}).interval == (1.0, 2.5)


def test_a_default_is_validated() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        WrongDefault()
