"""A searched setting has exactly one kind of range, which is not empty."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.config import ParameterSpec, Sweep


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give exactly one of choice, uniform, loguniform, int"),
        ({"int": [1, 2], "choice": [1]}, "give exactly one of"),
        ({"int": [2, 1]}, r"int = \[2, 1\]: the first must be the lower number"),
        ({"uniform": [1.0, 1.0]}, "the first must be the lower number"),
        ({"choice": []}, "choice needs at least one value"),
        ({"loguniform": [0, 1]}, "loguniform needs numbers above 0"),
        ({"integer": [1, 2]}, "Extra inputs are not permitted"),
        ({"int": [1.5, 2]}, "valid integer"),
    ],
)
def test_values_that_cannot_be_used_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ParameterSpec.model_validate(values)


def test_a_choice_keeps_the_types_of_its_values() -> None:
    values = ParameterSpec.model_validate({"choice": [1, 1.0, True, "1", [1, 2]]}).choice
    assert values is not None
    assert [type(value) for value in values] == [int, float, bool, str, tuple]


@pytest.mark.parametrize(
    ("values", "examples"),
    [
        ({"choice": ["a", "b", "c"]}, ("a", "b", "c")),
        ({"uniform": [0, 0.5]}, (0.0, 0.5)),
        ({"loguniform": [1e-4, 1e-2]}, (1e-4, 1e-2)),
        ({"int": [3, 5]}, (3, 5)),
    ],
)
def test_the_limits_of_a_range_represent_it(
    values: dict[str, Any], examples: tuple[object, ...]
) -> None:
    assert ParameterSpec.model_validate(values).examples() == examples


def test_one_trial_of_one_would_always_continue() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        Sweep(reduction_factor=1)
