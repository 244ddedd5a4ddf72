"""Ends a worker that no longer moves, because nothing else would.

A collective whose peer is gone or stuck waits without end, and neither TensorFlow nor Ray notices.
A worker that ends itself is a failure Ray sees: it starts the whole group again, which continues
from the last checkpoint.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

# sysexits.h: "internal software error".
EXIT_CODE = 70


class Watchdog:
    """Ends the process when no beat has come for limit_s seconds."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.last_beat = time.monotonic()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.beat()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()

    def beat(self) -> None:
        """Say that a step was finished."""
        self.last_beat = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For a block that may wait for others as long as it takes."""
        self.last_beat = math.inf
        try:
            yield
        finally:
            self.beat()

    def _watch(self) -> None:
        while not self.stopped.wait(min(5.0, self.limit_s / 4)):
            if time.monotonic() - self.last_beat > self.limit_s:
                log.error(
                    "no training step was finished for %.0f s (train.stall_timeout_s): "
                    "this worker ends itself so that the group is started again",
                    self.limit_s,
                )
                os._exit(EXIT_CODE)
