"""Prediction of a large folder or prefix with every free CPU or GPU of a Ray cluster.

Plain actors and not Ray Data: each actor loads the bundle once and runs the same loop as on one
machine over its chunk of the keys; the slices never pass through Ray's object store.
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

from contract.errors import ClusterError, UserError, last_line
from contract.imaging.decode import silence_opencv
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage
from inference.batch.predict_files import Failures, PredictionJob, predict_files
from inference.predictor import Predictor, load_predictor

# Slices that a worker is given at once, in batches: few enough to balance the load, many enough
# that the overhead of a chunk (a few ms) does not matter.
_BATCHES_PER_CHUNK = 4
_MAX_RETRIES = 3
_FREE_RESOURCES_TIMEOUT_S = 10.0
# A node that has never run our code copies it first.
_PLACEMENT_TIMEOUT_S = 120.0

log = logging.getLogger(__name__)


class _Worker:
    """One process with one CPU (or GPU) and the bundle."""

    def __init__(self, bundle: Storage, gpu: bool) -> None:
        silence_opencv()
        self._bundle = bundle
        self._gpu = gpu

    @cached_property
    def _predictor(self) -> Predictor:
        # Not in the constructor, whose errors Ray reports as the death of an actor.
        try:
            return load_predictor(self._bundle, threads=1, gpu=self._gpu)
        except UserError as error:
            raise ClusterError(
                f"the node {ray.util.get_node_ip_address()} cannot load the bundle: {error} "
                "A bundle must be at an s3:// address or in a folder that all nodes mount."
            ) from error

    def predict(self, job: PredictionJob, keys: Sequence[str], batch_size: int) -> Failures:
        """See predict_files."""
        return predict_files(job, self._predictor, keys, batch_size)


@final
class WorkerPool:
    """The workers of a prediction, and the chunks of its slices that are not done yet.

    A chunk is given only to a worker that is running: the free resources may be half a CPU on each
    of two nodes, and other jobs may take a CPU first, also that of a lost worker.
    """

    def __init__(self, bundle: Storage, gpu: bool, chunks: Sequence[list[str]]) -> None:
        self._bundle = bundle
        self._gpu = gpu
        self._chunks = deque(chunks)
        self._workers: list[Any] = []
        self._idle: deque[Any] = deque()
        # By object reference: a worker and its chunk, which is empty until the worker is running.
        self._pending: dict[Any, tuple[Any, list[str]]] = {}
        self._losses: Counter[str] = Counter()

    @property
    def is_unfinished(self) -> bool:
        """Whether there are chunks that are not done yet."""
        return bool(self._chunks) or self._is_busy

    @property
    def _is_busy(self) -> bool:
        return any(chunk for _, chunk in self._pending.values())

    def start_worker(self) -> None:
        """Request one more worker from Ray."""
        actor_class: Any = ray.remote(_Worker).options(num_cpus=1, num_gpus=1 if self._gpu else 0)
        worker = actor_class.remote(self._bundle, self._gpu)
        self._workers.append(worker)
        self._pending[worker.__ray_ready__.remote()] = worker, []

    def dispatch(self, job: PredictionJob, batch_size: int) -> None:
        """Give each idle worker a chunk."""
        while self._idle and self._chunks:
            worker, chunk = self._idle.popleft(), self._chunks.popleft()
            self._pending[worker.predict.remote(job.select(chunk), chunk, batch_size)] = (
                worker,
                chunk,
            )

    def collect(self) -> tuple[list[str], Failures]:
        """Wait for the next worker: the chunk that it has done, if any, and its failures."""
        done = self._wait()
        worker, chunk = self._pending.pop(done)
        try:
            result: Any = ray.get(done)
        except RayActorError as error:
            self._replace(worker, chunk, error)
            return [], {}
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None
        self._idle.append(worker)
        return chunk, result if chunk else {}

    def shutdown(self) -> None:
        """End all workers."""
        for worker in self._workers:
            ray.kill(worker)

    def _wait(self) -> Any:
        timeout_s = None if self._is_busy else _PLACEMENT_TIMEOUT_S
        done, _ = ray.wait(list(self._pending), timeout=timeout_s)
        if not done:
            raise ClusterError(
                f"no worker of the prediction was started within {_PLACEMENT_TIMEOUT_S:g} s: no "
                f"node has a whole CPU{' and a GPU' if self._gpu else ''} free; try again when the "
                "cluster is less busy."
            )
        return done[0]

    def _replace(self, worker: Any, chunk: list[str], error: Exception) -> None:
        """Assign the chunk of a lost worker again, unless it is lost too often."""
        key = chunk[0] if chunk else ""
        self._losses[key] += 1
        if self._losses[key] > _MAX_RETRIES:
            raise ClusterError(
                f"workers of the prediction are lost repeatedly ({last_line(error)}); run the "
                "command again to resume."
            ) from error
        ray.kill(worker)
        if chunk:
            self._chunks.appendleft(chunk)
        self.start_worker()


def predict_on_cluster(
    job: PredictionJob,
    bundle: Storage,
    keys: Sequence[str],
    batch_size: int,
    on_progress: ProgressCallback = no_progress,
) -> Failures:
    """Predict slices with the connected Ray cluster.

    A lost worker is replaced and its slices are assigned again.

    Args:
        job: Where slices are read from and masks are written to.
        bundle: The bundle, which all nodes must be able to read.
        keys: The slices.
        batch_size: Slices given to the predictor together.
        on_progress: Called after each chunk.

    Returns:
        The slices that could not be predicted, and why.

    Raises:
        ClusterError: Workers are lost repeatedly or cannot be started, or they do not use the same
            storage as this process.
    """
    chunks = list(_chunks(keys, batch_size * _BATCHES_PER_CHUNK))
    gpus, cpus = _wait_for_free_resources()
    # One worker per free GPU if there are any, else one per free CPU; never more than needed.
    max_workers = min(gpus or cpus, cpus, len(chunks))
    log.info("up to %d workers predict %d slices", max_workers, len(keys))
    pool = WorkerPool(bundle, bool(gpus), chunks)
    failures: Failures = {}
    done = 0
    try:
        for _ in range(max_workers):
            pool.start_worker()
        while pool.is_unfinished:
            pool.dispatch(job, batch_size)
            chunk, chunk_failures = pool.collect()
            failures |= chunk_failures
            done += len(chunk)
            on_progress(done, len(keys), "")
    finally:
        pool.shutdown()
    _check_written(job, [key for key in keys if key not in failures])
    return failures


def _wait_for_free_resources() -> tuple[int, int]:
    """Free GPUs and CPUs; waits briefly, because those of work that just ended are freed late."""
    deadline = time.monotonic() + _FREE_RESOURCES_TIMEOUT_S
    while time.monotonic() < deadline:
        free = ray.available_resources()
        if free.get("CPU", 0) >= 1:
            return int(free.get("GPU", 0)), int(free["CPU"])
        time.sleep(0.2)
    raise ClusterError("the cluster has no free CPU: try again when it is less busy.")


def _chunks(keys: Sequence[str], size: int) -> Iterator[list[str]]:
    remaining = iter(keys)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _check_written(job: PredictionJob, keys: Sequence[str]) -> None:
    """ClusterError if workers on other machines wrote to folders of their own."""
    present = {info.key for info in job.output.list_objects()}
    missing = [key for key in keys if not job.output_keys(key) <= present]
    if missing:
        raise ClusterError(
            f"{len(missing)} masks are not in {job.output.url}: the machines of the cluster do not "
            "share this folder; give an s3:// address or a folder that all of them mount."
        )
