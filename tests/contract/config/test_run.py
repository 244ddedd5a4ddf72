"""A run has a name that can be a folder, and a seed that NumPy accepts."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.config import Run


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a/b"}, "should match pattern"),
        ({"name": ".."}, "should match pattern"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"seed": 2**31}, "less than 2147483648"),
        ({"seed": 1.0}, "valid integer"),
    ],
)
def test_values_that_cannot_be_used_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Run.model_validate(values)
