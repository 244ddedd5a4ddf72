"""Prediction over a large folder or prefix by every free CPU or GPU of a Ray cluster.

Plain actors and not Ray Data: each opens the bundle once and runs the very loop of a prediction
on one machine over its share of the keys; the slices never pass through Ray's object store.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayActorError

from contract.errors import ClusterError
from contract.storage import Storage
from inference.images import quieten
from inference.predict import Advance, Failures, Task, segment_files
from inference.segmenter import open_segmenter

# Slices a worker is handed at once, in batches: few enough to spread evenly, many enough that the
# hand-over (a few ms) does not count.
_BATCHES_PER_SHARE = 4
_RETRIES = 3
_FREE_WITHIN_S = 10.0

log = logging.getLogger(__name__)


class _Worker:
    """One process with one CPU (or GPU) and the bundle."""

    def __init__(self, bundle: Storage, gpu: bool) -> None:
        quieten()
        self.segmenter = open_segmenter(bundle, threads=1, gpu=gpu)

    def segment(self, task: Task, keys: Sequence[str], batch: int) -> Failures:
        """See predict.segment_files."""
        return segment_files(task, self.segmenter, keys, batch, lambda _: None)


def segment_on_cluster(
    task: Task, bundle: Storage, keys: Sequence[str], batch: int, advance: Advance
) -> Failures:
    """Segment slices on all free CPUs or GPUs of the connected cluster; gives the failures.

    A worker that is lost is replaced and its slices are given out again. Raises ClusterError
    where that goes on, or where the workers do not see the same storage as this process.
    """
    shares = deque(_shares(keys, batch * _BATCHES_PER_SHARE))
    workers = _start(bundle, len(shares))
    log.info("%d workers segment %d slices.", len(workers), len(keys))
    failures: Failures = {}
    running: dict[Any, tuple[Any, list[str]]] = {}
    try:
        idle = deque(workers)
        while shares or running:
            while idle and shares:
                worker, share = idle.popleft(), shares.popleft()
                running[worker.segment.remote(task, share, batch)] = worker, share
            (done,), _ = ray.wait(list(running))
            worker, share = running.pop(done)
            failures |= _result(done)
            idle.append(worker)
            advance(len(share))
    finally:
        for worker in workers:
            ray.kill(worker)
    _check_written(task, [key for key in keys if key not in failures])
    return failures


def _start(bundle: Storage, most: int) -> list[Any]:
    """One worker a free GPU where there are any, else one a free CPU; never more than needed."""
    gpus, cpus = _free()
    count = min(gpus or cpus, cpus, most)
    worker = ray.remote(_Worker).options(
        num_cpus=1,
        num_gpus=1 if gpus else 0,
        max_restarts=_RETRIES,
        max_task_retries=_RETRIES,
    )
    return [worker.remote(bundle, bool(gpus)) for _ in range(count)]


def _free() -> tuple[int, int]:
    """Free GPUs and CPUs; waits a little, as those of work that just ended are freed late."""
    deadline = time.monotonic() + _FREE_WITHIN_S
    while time.monotonic() < deadline:
        free = ray.available_resources()
        if free.get("CPU", 0) >= 1:
            return int(free.get("GPU", 0)), int(free["CPU"])
        time.sleep(0.2)
    raise ClusterError("the cluster has no free CPU: try again when it is less busy.")


def _result(done: Any) -> Failures:
    try:
        return ray.get(done)
    except RayActorError as error:
        raise ClusterError(
            f"workers of the prediction are lost again and again ({error}); "
            "run the command again to go on where it stopped."
        ) from error


def _shares(keys: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(keys)
    while share := list(islice(rest, size)):
        yield share


def _check_written(task: Task, keys: Sequence[str]) -> None:
    """Refuse to end well where workers on other machines wrote into folders of their own."""
    present = {entry.key for entry in task.output.entries()}
    lost = [key for key in keys if not task.outputs(key) <= present]
    if lost:
        raise ClusterError(
            f"{len(lost)} masks are not in {task.output.url}: the machines of the cluster do not "
            "share this folder; give an s3:// address or a folder that all of them mount."
        )
