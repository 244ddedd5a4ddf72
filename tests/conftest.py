"""What all tests share: one small Ray cluster."""

from collections.abc import Iterator

import pytest

from cluster.connection import Connection, connected
from contract.config import Cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Connection]:
    """One Ray of 4 logical CPUs for the whole suite: two training workers and a replica fit."""
    with connected(Cluster(cpus=4)) as connection:
        yield connection
