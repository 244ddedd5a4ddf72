"""Freeing what an actor of a job had reserved, when the actor is dead and the job goes on.

Ray keeps a placement group until both its maker and the whole job are gone. A sweep is one job:
what the worker group of a stopped trial had reserved would be missing until its end.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private.state import state
from ray.core.generated.gcs_pb2 import (
    PlacementGroupTableData,  # pyright: ignore[reportAttributeAccessIssue]  made by protobuf
)
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group

_EVERY_S = 1.0

log = logging.getLogger(__name__)


@contextmanager
def orphan_cleanup() -> Iterator[None]:
    """For the time of the block, free the placement groups of this job whose makers have died."""
    freeing: Any = OrphanCleaner
    actor = freeing.remote()
    try:
        yield
    finally:
        # Where the cluster is lost the actor is gone too, and the block has the error to tell.
        with suppress(RayError):
            ray.kill(actor)


@ray.remote(num_cpus=0, max_restarts=-1)
class OrphanCleaner:
    """Looks every second. An actor, as a driver behind Ray Client cannot ask for the table."""

    def __init__(self) -> None:
        threading.Thread(target=self._look, name="leftovers", daemon=True).start()

    def _look(self) -> None:
        pause = threading.Event()
        while not pause.wait(_EVERY_S):
            try:
                remove_orphaned()
            except Exception:
                # Ray's control store may be away for a moment; the next look finds the same.
                log.warning("cannot look for what dead actors had reserved", exc_info=True)


def remove_orphaned() -> None:
    """Remove the placement groups of this job whose makers were actors that are dead.

    Ray's public table does not tell of makers, the message behind it does.
    """
    job = ray.get_runtime_context().get_job_id()
    for message in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(message)
        there = group.state != PlacementGroupTableData.REMOVED
        # What a driver has made counts as made by an actor without a name, which is dead.
        orphaned = group.creator_actor_dead and not ray.ActorID(group.creator_actor_id).is_nil()
        if there and orphaned and group.creator_job_id.hex() == job:
            name = ray.PlacementGroupID(group.placement_group_id)
            remove_placement_group(PlacementGroup(name))
