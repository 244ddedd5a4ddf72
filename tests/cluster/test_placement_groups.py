"""What a dead actor had reserved is freed, and what others had is not."""

from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from cluster.connection import Connection
from cluster.placement_groups import orphan_cleanup
from tests.waiting import wait_until


@ray.remote(num_cpus=0)
class Maker:
    """Reserves a CPU, and keeps it for as long as Ray lets it."""

    def reserve(self) -> PlacementGroup:
        made = placement_group([{"CPU": 1}])
        ray.get(made.ready())
        return made


def state(group: PlacementGroup) -> str:
    return placement_group_table(group)["state"]


def test_what_dead_actors_reserved_is_freed_and_nothing_else(ray_cluster: Connection) -> None:
    of_driver = placement_group([{"CPU": 1}])
    ray.get(of_driver.ready())
    makers: list[Any] = [Maker.remote(), Maker.remote()]
    kept, left = ray.get([maker.reserve.remote() for maker in makers])
    try:
        with orphan_cleanup():
            ray.kill(makers[1])
            wait_until(lambda: state(left) == "REMOVED", "it stays reserved")
        assert [state(of_driver), state(kept)] == ["CREATED", "CREATED"]
    finally:
        for group in (of_driver, kept, left):
            remove_placement_group(group)
