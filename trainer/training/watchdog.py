"""Ends a worker that makes no progress, because nothing else would.

A collective whose peer is gone or stuck waits indefinitely, and neither TensorFlow nor Ray detects
it. A worker that ends itself is a failure that Ray detects: it restarts the worker group, which
resumes from the last checkpoint.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

# sysexits.h: "internal software error".
EXIT_CODE = 70


class Watchdog:
    """Ends the process if there was no heartbeat for limit_s seconds."""

    def __init__(self, limit_s: float, report_stall: Callable[[float], None]) -> None:
        """report_stall: called with the seconds without a step before the process ends."""
        self._limit_s, self._report_stall = limit_s, report_stall
        self._last_beat = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._check_progress, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def beat(self) -> None:
        """Report that a step was finished."""
        self._last_beat = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For a block that may wait for other processes without a limit."""
        self._last_beat = math.inf
        try:
            yield
        finally:
            self.beat()

    def _check_progress(self) -> None:
        while not self._stopped.wait(min(5.0, self._limit_s / 4)):
            if time.monotonic() - self._last_beat > self._limit_s:
                log.error(
                    "no training step was finished for %.0f s (train.stall_timeout_s): this worker "
                    "ends itself so that the worker group is restarted",
                    self._limit_s,
                )
                self._report_stall(self._limit_s)
                os._exit(EXIT_CODE)
