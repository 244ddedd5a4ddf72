"""Removing the placement groups of dead actors while their job continues.

Ray keeps a placement group until both its creator and the whole job have ended. A sweep is one job:
the resources of a stopped trial's worker group would stay reserved until its end.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import remove_placement_group

from cluster import ray_internals

_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


@contextmanager
def orphan_cleanup() -> Iterator[None]:
    """During the block, remove the placement groups of this job whose creators have died."""
    actor_class: Any = OrphanCleaner
    actor = actor_class.remote()
    try:
        yield
    finally:
        # If the cluster is lost the actor is too, and the block raises the error.
        with suppress(RayError):
            ray.kill(actor)


@ray.remote(num_cpus=0, max_restarts=-1)
class OrphanCleaner:
    """Cleans up once per second. An actor, because Ray Client cannot read the table."""

    def __init__(self) -> None:
        thread = threading.Thread(target=self._clean_up, name="orphan-cleaner", daemon=True)
        thread.start()

    def _clean_up(self) -> None:
        pause = threading.Event()
        while not pause.wait(_INTERVAL_S):
            try:
                remove_orphaned()
            except Exception:
                # Ray's control store may be unavailable for a moment; the next pass finds the same.
                log.warning("cannot look for placement groups of dead actors", exc_info=True)


def remove_orphaned() -> None:
    """Remove the placement groups of this job whose creators were actors that are dead."""
    job_id = ray.get_runtime_context().get_job_id()
    for group in ray_internals.orphaned_placement_groups(job_id):
        remove_placement_group(group)
