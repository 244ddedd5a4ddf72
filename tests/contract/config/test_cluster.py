"""The cluster on AWS is open to few addresses, and its limits fit each other."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.config import Cloud, Cluster


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_workers": 3, "max_workers": 2}, "min_workers must not be above max_workers"),
        ({"private_addresses": True}, r"private_addresses needs cluster\.cloud\.subnet"),
        ({"ssh_from": "me"}, r"cluster\.cloud\.ssh_from = 'me' is not a valid CIDR block"),
        ({"ssh_from": "203.0.113.7/24"}, "is not a valid CIDR block: .* has host bits set"),
        ({"ssh_from": "0.0.0.0/0"}, "opens SSH to 4294967296 addresses: name your own"),
        ({"ssh_from": "::/0"}, "opens SSH to .* addresses: name your own"),
        ({"region": "Frankfurt"}, "should match pattern"),
        ({"name": "my cluster"}, "should match pattern"),
    ],
)
def test_values_that_cannot_be_used_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Cloud.model_validate(values)


@pytest.mark.parametrize("block", ["203.0.113.7/32", "10.0.0.0/16", "2001:db8::7/128"])
def test_a_small_block_may_reach_the_head(block: str) -> None:
    assert Cloud(ssh_from=block).ssh_from == block


def test_nodes_without_public_addresses_are_in_a_subnet() -> None:
    assert Cloud(private_addresses=True, subnet="subnet-1").private_addresses


def test_a_cluster_needs_time_to_start() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Cluster(start_timeout_s=0.0)
