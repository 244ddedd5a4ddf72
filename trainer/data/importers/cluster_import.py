"""The import of volumes by the free CPUs of a Ray cluster, one volume a task.

Its nodes read the sources and write the dataset themselves: sources are in a folder that all of
them mount, and so is the dataset, unless it is at an s3:// address.
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
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            task = pending.pop(ready)
            yield task, _create_future(ready, task)


def _create_future(ready: Any, task: VolumeTask) -> "Future[tuple[VolumeRecord, bool]]":
    """The result or the error of a finished task."""
    future: Future[tuple[VolumeRecord, bool]] = Future()
    try:
        result: Any = ray.get(ready)
        if not task.output.exists(task.record_key):
            raise ClusterError(
                f"a node wrote the slices of {task.source.volume.label} to a folder that this "
                f"machine does not see: OUTPUT {task.output.url} must be an s3:// address, or in a "
                "folder that all nodes mount."
            )
        future.set_result(result)
    except ClusterError as error:
        future.set_exception(error)
    except RayTaskError as error:
        cause = error.cause
        future.set_exception(cause if isinstance(cause, Exception) else error)
    except RayError as error:
        message = (
            f"the cluster could not import {task.source.volume.label} in {_MAX_RETRIES + 1} "
            f"attempts ({first_line(error)}): run the command again, which continues with it."
        )
        future.set_exception(ClusterError(message))
    return future
