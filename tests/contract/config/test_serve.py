"""Settings of the service that contradict each other are rejected."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.config import Serve


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"num_replicas": 2, "max_replicas": 1},
            r"max_replicas = 1 must not be below serve\.num_replicas = 2",
        ),
        ({"api_key_env": "secret key"}, "should match pattern"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"port": 65536}, "less than or equal to 65535"),
    ],
)
def test_values_that_cannot_be_used_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Serve.model_validate(values)


def test_as_many_replicas_as_the_maximum_are_accepted() -> None:
    serve = Serve(num_replicas=2, max_replicas=2, api_key_env="SEGFLEET_API_KEY")
    assert serve.max_replicas == serve.num_replicas
