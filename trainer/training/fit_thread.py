"""Ray Train's `fit()` in a thread that can be ended.

A thread that still waits for Ray when this process disconnects from Ray, or ends, makes the process
exit with 1 or crash (Ray 2.60): its exit code would not say that it was interrupted.
"""

import threading
import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

STOP_TIMEOUT_S = 30.0
_POLL_INTERVAL_S = 0.2


class FitThread(threading.Thread):
    """Runs the worker group of a trainer to its end.

    In a thread, because in the main thread Ray Train replaces the handler of Ctrl-C.
    """

    def __init__(self, trainer: DataParallelTrainer, progress_actor: Any) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._trainer, self._actor = trainer, progress_actor
        self.error: BaseException | None = None
        """What `fit()` raised."""

    def run(self) -> None:
        """Call `fit()`."""
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        """End the controller of the worker group, with it the workers, and then this thread."""
        if not self.is_alive():
            return
        deadline = time.monotonic() + STOP_TIMEOUT_S
        # If the cluster is lost, `fit()` ends with an error of its own.
        with suppress(RayError):
            while self.is_alive() and time.monotonic() < deadline:
                self._kill_controller()
                self.join(_POLL_INTERVAL_S)
            # This process may stay connected, and the job would keep the resources until its end.
            ray.get(self._actor.remove_orphaned.remote(), timeout=STOP_TIMEOUT_S)
        self.join(max(0.0, deadline - time.monotonic()))

    def _kill_controller(self) -> None:
        """End the controller, if it has started."""
        controller: Any = ray.get(self._actor.controller.remote(), timeout=STOP_TIMEOUT_S)
        if controller is not None:
            ray.kill(controller)
