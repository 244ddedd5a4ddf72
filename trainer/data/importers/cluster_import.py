"""The import of volumes by the free CPUs of a Ray cluster, one volume a task.

Its nodes read the sources themselves: these are in a folder that all of them mount.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.connection import ray_session
from contract.config import Cluster
from contract.errors import ClusterError, first_line
from trainer.data.importers.slice_files import VolumeRecord, VolumeTask, import_volume

# How often a volume is started again after its node or process was lost.
_MAX_RETRIES = 3


def run_on_cluster(
    tasks: Sequence[VolumeTask], cluster: Cluster
) -> Iterator[tuple[VolumeTask, "Future[tuple[VolumeRecord, bool]]"]]:
    """Each volume with its finished future, in the order in which they are finished."""
    with ray_session(cluster):
        remote: Any = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)(import_volume)
        pending = {remote.remote(task): task for task in tasks}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            task = pending.pop(done)
            yield task, _finished(done, task)


def _finished(done: Any, task: VolumeTask) -> "Future[tuple[VolumeRecord, bool]]":
    future: Future[tuple[VolumeRecord, bool]] = Future()
    try:
        future.set_result(ray.get(done))
    except RayTaskError as error:
        cause = error.cause
        future.set_exception(cause if isinstance(cause, Exception) else error)
    except RayError as error:
        message = (
            f"{task.source.volume.label} was lost with its process {_MAX_RETRIES + 1} times "
            f"({first_line(error)}): run the command again, which continues with it."
        )
        future.set_exception(ClusterError(message))
    return future
