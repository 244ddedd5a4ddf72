"""Prediction over a large folder or prefix by every free CPU or GPU of a Ray cluster.

Plain actors and not Ray Data: each opens the bundle once and runs the very loop of a prediction
on one machine over its share of the keys; the slices never pass through Ray's object store.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, final

import ray
from ray.exceptions import RayActorError, RayTaskError

from contract.errors import ClusterError, UserError
from contract.imaging.encode import silence_opencv
from contract.storage import Storage
from inference.batch.predict_files import Advance, Failures, PredictionJob, predict_files
from inference.engines import last_line
from inference.predictor import Predictor, load_predictor

# Slices a worker is handed at once, in batches: few enough to spread evenly, many enough that the
# hand-over (a few ms) does not count.
_BATCHES_PER_SHARE = 4
_RETRIES = 3
_FREE_WITHIN_S = 10.0
# A node that has never run our code copies it first.
_PLACED_WITHIN_S = 120.0

log = logging.getLogger(__name__)


class _Worker:
    """One process with one CPU (or GPU) and the bundle."""

    def __init__(self, bundle: Storage, gpu: bool) -> None:
        silence_opencv()
        self._bundle = bundle
        self._gpu = gpu

    @cached_property
    def _segmenter(self) -> Predictor:
        # Not in the constructor, whose errors Ray tells as the death of an actor.
        try:
            return load_predictor(self._bundle, threads=1, gpu=self._gpu)
        except UserError as error:
            raise ClusterError(
                f"the node {ray.util.get_node_ip_address()} cannot open the bundle: {error} "
                "A bundle must lie at an s3:// address or in a folder that all nodes mount."
            ) from error

    def segment(self, task: PredictionJob, keys: Sequence[str], batch: int) -> Failures:
        """See predict.segment_files."""
        return predict_files(task, self._segmenter, keys, batch, lambda _: None)


@final
class WorkerPool:
    """The workers of a prediction, and the shares of its slices that are still to be done.

    A share is given only to a worker that runs: the sum of what is free may be half a CPU on each
    of two nodes, and others may take a CPU first, also that of a worker that is lost.
    """

    def __init__(self, bundle: Storage, gpu: bool, shares: Sequence[list[str]]) -> None:
        self._bundle = bundle
        self._gpu = gpu
        self._shares = deque(shares)
        self._workers: list[Any] = []
        self._idle: deque[Any] = deque()
        # By what is awaited of it: a worker and its share, which is empty until it runs.
        self._awaited: dict[Any, tuple[Any, list[str]]] = {}
        self._losses: Counter[str] = Counter()

    @property
    def unfinished(self) -> bool:
        """Whether there are shares that nobody has done yet."""
        return bool(self._shares) or self._busy

    @property
    def _busy(self) -> bool:
        return any(share for _, share in self._awaited.values())

    def start_worker(self) -> None:
        """Ask Ray for one more worker."""
        kind: Any = ray.remote(_Worker).options(num_cpus=1, num_gpus=1 if self._gpu else 0)
        worker = kind.remote(self._bundle, self._gpu)
        self._workers.append(worker)
        self._awaited[worker.__ray_ready__.remote()] = worker, []

    def dispatch(self, task: PredictionJob, batch: int) -> None:
        """Give the workers that have nothing to do a share each."""
        while self._idle and self._shares:
            worker, share = self._idle.popleft(), self._shares.popleft()
            self._awaited[worker.segment.remote(task, share, batch)] = worker, share

    def collect(self) -> tuple[list[str], Failures]:
        """Wait for the next worker: the share it has done, if it had one, and its failures."""
        done = self._next()
        worker, share = self._awaited.pop(done)
        try:
            found: Any = ray.get(done)
        except RayActorError as error:
            self._replace(worker, share, error)
            return [], {}
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None
        self._idle.append(worker)
        return share, found if share else {}

    def shutdown(self) -> None:
        """End all workers."""
        for worker in self._workers:
            ray.kill(worker)

    def _next(self) -> Any:
        awaited = list(self._awaited)
        done, _ = ray.wait(awaited, timeout=None if self._busy else _PLACED_WITHIN_S)
        if not done:
            raise ClusterError(
                f"no worker of the prediction was started within {_PLACED_WITHIN_S:g} s: no node "
                f"has a whole CPU{' and a GPU' if self._gpu else ''} free; try again when the "
                "cluster is less busy."
            )
        return done[0]

    def _replace(self, worker: Any, share: list[str], error: Exception) -> None:
        """Have others do the share of a worker that is lost, unless it is lost again and again."""
        name = share[0] if share else ""
        self._losses[name] += 1
        if self._losses[name] > _RETRIES:
            raise ClusterError(
                f"workers of the prediction are lost again and again ({last_line(error)}); "
                "run the command again to go on where it stopped."
            ) from error
        ray.kill(worker)
        if share:
            self._shares.appendleft(share)
        self.start_worker()


def predict_on_cluster(
    task: PredictionJob, bundle: Storage, keys: Sequence[str], batch: int, advance: Advance
) -> Failures:
    """Segment slices on all free CPUs or GPUs of the connected cluster; gives the failures.

    A worker that is lost is replaced and its slices are given out again. Raises ClusterError
    where that goes on, where no worker can be started, or where the workers do not see the same
    storage as this process.
    """
    shares = list(_shares(keys, batch * _BATCHES_PER_SHARE))
    gpus, cpus = _free()
    # One a free GPU where there are any, else one a free CPU; never more than needed.
    most = min(gpus or cpus, cpus, len(shares))
    log.info("Up to %d workers segment %d slices.", most, len(keys))
    crew = WorkerPool(bundle, bool(gpus), shares)
    failures: Failures = {}
    try:
        for _ in range(most):
            crew.start_worker()
        while crew.unfinished:
            crew.dispatch(task, batch)
            share, found = crew.collect()
            failures |= found
            advance(len(share))
    finally:
        crew.shutdown()
    _check_written(task, [key for key in keys if key not in failures])
    return failures


def _free() -> tuple[int, int]:
    """Free GPUs and CPUs; waits a little, as those of work that just ended are freed late."""
    deadline = time.monotonic() + _FREE_WITHIN_S
    while time.monotonic() < deadline:
        free = ray.available_resources()
        if free.get("CPU", 0) >= 1:
            return int(free.get("GPU", 0)), int(free["CPU"])
        time.sleep(0.2)
    raise ClusterError("the cluster has no free CPU: try again when it is less busy.")


def _shares(keys: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(keys)
    while share := list(islice(rest, size)):
        yield share


def _check_written(task: PredictionJob, keys: Sequence[str]) -> None:
    """Refuse to end well where workers on other machines wrote into folders of their own."""
    present = {entry.key for entry in task.output.list_objects()}
    lost = [key for key in keys if not task.outputs(key) <= present]
    if lost:
        raise ClusterError(
            f"{len(lost)} masks are not in {task.output.url}: the machines of the cluster do not "
            "share this folder; give an s3:// address or a folder that all of them mount."
        )
