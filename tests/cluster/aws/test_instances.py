"""The table of instance types."""

import pytest

from cluster.aws.instances import load_table
from contract.config import Cloud
from contract.errors import ClusterError


def test_it_has_the_default_types_with_prices() -> None:
    table = load_table()
    for name in (Cloud().head_type, Cloud().worker_type):
        assert table.instance(name).usd > 0
    assert table.instance("g5.xlarge").gpus == 1


def test_an_unknown_type_is_named_with_the_closest_one() -> None:
    with pytest.raises(ClusterError, match=r"'g5\.xlrge' is not an instance type .*g5\.xlarge"):
        load_table().instance("g5.xlrge")
