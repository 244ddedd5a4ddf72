"""Progress and failures of a worker group, and its controller: held by an actor for the driver."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.placement_groups import remove_orphaned
from trainer.training.failures import WorkerFailure

# How often the driver reads progress, and rank 0 sends it, in seconds.
POLL_INTERVAL_S = 0.5
_HEARTBEAT_INTERVAL_S = 5.0
_STALL_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ProgressReport:
    """What the driver reads."""

    progress: tuple[int, int | None, str] | None
    """Steps done, steps in total and a note; None before a worker has started."""
    heartbeats: int
    """Messages of rank 0 since the actor started. The driver measures the time between them: a
    clock of the actor would start again with each of its restarts."""
    failures: Sequence[Sequence[WorkerFailure]]
    """The workers that failed, for each failure of the group."""
    controller: Any = None
    """The handle of Ray Train's controller; None before it has started."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ProgressActor:
    """Holds what the driver reads; written by rank 0 and by Ray Train's controller.

    If its process is lost, Ray restarts it, empty.
    """

    def __init__(self) -> None:
        self._latest: tuple[int, int | None, str] | None = None
        self._heartbeats = 0
        self._failures: list[list[WorkerFailure]] = []
        self._stalls: dict[int, float] = {}
        self._controller: Any = None

    def update(self, done: int, total: int | None, note: str) -> None:
        """Replace the progress."""
        self._latest = (done, total, note)
        self.heartbeat()

    def heartbeat(self) -> None:
        """Record that rank 0 is alive."""
        self._heartbeats += 1

    def add_stall(self, rank: int, seconds: float) -> None:
        """Record that a worker ends itself after this many seconds without a step."""
        self._stalls[rank] = seconds

    def add_failures(self, failures: Sequence[WorkerFailure]) -> None:
        """Record a failure of the worker group."""
        self._failures.append([self._with_stall(failure) for failure in failures])
        self._stalls = {}

    def _with_stall(self, failure: WorkerFailure) -> WorkerFailure:
        seconds = self._stalls.get(failure.rank)
        if seconds is None:
            return failure
        return replace(failure, reason=f"stopped responding for {seconds:.0f} s")

    def set_controller(self, controller: Any) -> None:
        """Record the handle of Ray Train's controller."""
        self._controller = controller

    def remove_orphaned(self) -> None:
        """Remove the placement groups of dead controllers; Ray Client cannot read their table."""
        remove_orphaned()

    def latest(self) -> ProgressReport:
        """The latest progress, all failures and the controller."""
        failures = tuple(self._failures)
        return ProgressReport(self._latest, self._heartbeats, failures, self._controller)


def create_progress_actor() -> Any:
    """A ProgressActor on the node of the driver, whose loss ends the driver too.

    On a node of the workers it would be lost with them, with the failures that it has recorded.
    """
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ProgressActor.options(scheduling_strategy=node).remote()


class ProgressReporter:
    """Sends progress to the actor, at most as often as the driver reads it.

    From the first report to the end of the block it also sends heartbeats: reading slices, a
    validation or the export may take long without a step.
    """

    def __init__(self, progress_actor: Any, rank: int) -> None:
        self._actor, self._rank = progress_actor, rank
        self._last_sent, self._stopped = 0.0, threading.Event()

    def __enter__(self) -> "ProgressReporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def __call__(self, done: int, total: int | None, note: str) -> None:
        """Report that this many of the total steps are done."""
        if not self._last_sent:
            threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True).start()
        if done in (0, total) or time.monotonic() - self._last_sent > POLL_INTERVAL_S:
            self._last_sent = time.monotonic()
            self._actor.update.remote(done, total, note)

    def report_stall(self, seconds: float) -> None:
        """Report that this worker ends itself after this many seconds without a step."""
        with suppress(RayError):
            ray.get(self._actor.add_stall.remote(self._rank, seconds), timeout=_STALL_TIMEOUT_S)

    def _send_heartbeats(self) -> None:
        while not self._stopped.wait(_HEARTBEAT_INTERVAL_S):
            self._actor.heartbeat.remote()
