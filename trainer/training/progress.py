"""Progress of a worker group: reported by rank 0, held by a Ray actor, read by the driver."""

import threading
import time
from typing import Any

import ray

# How often the driver reads progress, and rank 0 sends it, in seconds.
POLL_INTERVAL_S = 0.5
_HEARTBEAT_INTERVAL_S = 5.0


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ProgressActor:
    """Holds the latest progress; written by rank 0, read by the driver.

    Its node may be lost like any other. Ray then restarts it, empty, on another node.
    """

    def __init__(self) -> None:
        self._latest: tuple[int, int | None, str] | None = None
        self._last_heartbeat = time.monotonic()

    def update(self, done: int, total: int | None, note: str) -> None:
        """Replace the progress."""
        self._latest = (done, total, note)
        self.heartbeat()

    def heartbeat(self) -> None:
        """Record that rank 0 is alive."""
        self._last_heartbeat = time.monotonic()

    def latest(self) -> tuple[tuple[int, int | None, str] | None, float]:
        """The latest progress, None before a worker has started, and seconds since a heartbeat."""
        return self._latest, time.monotonic() - self._last_heartbeat


class ProgressReporter:
    """Sends progress to the actor, at most as often as the driver reads it.

    From the first report to the end of the block it also sends heartbeats: reading slices, a
    validation or the export may take long without a step.
    """

    def __init__(self, progress_actor: Any) -> None:
        self._actor, self._last_sent, self._stopped = progress_actor, 0.0, threading.Event()

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

    def _send_heartbeats(self) -> None:
        while not self._stopped.wait(_HEARTBEAT_INTERVAL_S):
            self._actor.heartbeat.remote()
