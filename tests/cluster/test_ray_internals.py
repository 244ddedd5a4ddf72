"""What the project takes from private modules of Ray still exists and does the same.

The callers' own tests cover the HTTP options of Serve and the deletion of an application
(inference.serving.service), the version and dashboard of a cluster (cluster.jobs.client), and the
callback that gets Ray Train's controller (trainer.training.fit_thread) on a running cluster.
"""

import os
from typing import Any

import ray
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    TrainAutoscalingCoordinatorClient,
)
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.connection import Connection
from cluster.ray_internals import (
    machine_memory_gb,
    orphaned_placement_groups,
    start_autoscaling_coordinator,
)
from tests.processes import resident_bytes
from tests.waiting import wait_until


@ray.remote(num_cpus=0)
class Creator:
    """Creates a placement group and stays alive."""

    def create(self) -> PlacementGroup:
        group = placement_group([{"CPU": 1}])
        ray.get(group.ready())
        return group


def test_ray_train_uses_the_coordinator_that_was_started(ray_cluster: Connection) -> None:
    start_autoscaling_coordinator()
    coordinator: Any = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
    client = TrainAutoscalingCoordinatorClient("test")
    used: Any = client._autoscaling_coordinator
    client.send_resource_request(ScalingConfig(num_workers=1), 1)
    assert used._actor_id == coordinator._actor_id
    client.cancel_resource_request()


def test_only_the_group_of_a_dead_actor_of_the_job_is_orphaned(ray_cluster: Connection) -> None:
    job_id = ray.get_runtime_context().get_job_id()
    of_driver = placement_group([{"CPU": 1}])
    creators: list[Any] = [Creator.remote(), Creator.remote()]
    of_living, of_dead = ray.get([creator.create.remote() for creator in creators])
    try:
        assert list(orphaned_placement_groups(job_id)) == []
        ray.kill(creators[1])
        orphans = wait_until(lambda: list(orphaned_placement_groups(job_id)))
        assert [group.id for group in orphans] == [of_dead.id]
        assert list(orphaned_placement_groups("00000000")) == []
    finally:
        for group in (of_driver, of_living, of_dead):
            remove_placement_group(group)


def test_the_memory_of_this_machine_is_known() -> None:
    used, total = machine_memory_gb()
    # At least what this process has, and at most what the machine has.
    assert resident_bytes(os.getpid()) / 2**30 < used < total
    assert total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
