"""Ray Train's `fit()` in a thread that can be ended.

A thread that still waits for Ray when this process disconnects from Ray, or ends, makes the process
exit with 1 or crash (Ray 2.60): its exit code would not say that it was interrupted.
"""

import logging
import threading
import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

STOP_TIMEOUT_S = 30.0
_REQUEST_TIMEOUT_S = 10.0
_POLL_INTERVAL_S = 0.2

log = logging.getLogger(__name__)


class FitThread(threading.Thread):
    """Runs the worker group of a trainer to its end.

    In a thread, because in the main thread Ray Train replaces the handler of Ctrl-C. Use is_running
    and wait() instead of is_alive() and join(): before Python 3.13, a thread whose join() Ctrl-C
    has interrupted counts as ended while it runs.
    """

    def __init__(self, trainer: DataParallelTrainer, progress_actor: Any) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._trainer, self._actor = trainer, progress_actor
        self.controller: Any = None
        """The handle of Ray Train's controller, once it is known."""
        self.error: BaseException | None = None
        """What `fit()` raised."""
        self._ended = threading.Event()

    def run(self) -> None:
        """Call `fit()`."""
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()

    @property
    def is_running(self) -> bool:
        """Whether the thread was started and `fit()` has not returned."""
        return self.ident is not None and not self._ended.is_set()

    def wait(self, timeout_s: float) -> None:
        """Wait until `fit()` has returned, at most this many seconds."""
        self._ended.wait(timeout_s)

    def stop(self) -> None:
        """End the controller of the worker group, with it the workers, and then this thread.

        Takes at most STOP_TIMEOUT_S seconds and one more request, also if the cluster is lost. Logs
        a warning if the thread has not ended by then.
        """
        if not self.is_running:
            return
        log.info("ending the training workers")
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.is_running and time.monotonic() < deadline:
            # What a lost cluster raises; Ray Client raises a ConnectionError.
            with suppress(RayError, ConnectionError):
                self._kill_controller()
            self.wait(_POLL_INTERVAL_S)
        if self.is_running:
            log.warning(
                "Ray Train did not end within %.0f s: its workers may train on", STOP_TIMEOUT_S
            )
            return
        # This process may stay connected, and the job would keep the resources until its end.
        with suppress(RayError, ConnectionError):
            ray.get(self._actor.remove_orphaned.remote(), timeout=_REQUEST_TIMEOUT_S)

    def _kill_controller(self) -> None:
        """End the controller, if it has started."""
        if self.controller is None:
            report: Any = ray.get(self._actor.latest.remote(), timeout=_REQUEST_TIMEOUT_S)
            self.controller = report.controller
        if self.controller is not None:
            ray.kill(self.controller)
