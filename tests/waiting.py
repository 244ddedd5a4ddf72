"""Waiting for other processes: how long, before a test takes them to be hung."""

import time
from collections.abc import Callable
from typing import TypeVar

# A limit for what hangs, not for what is slow: a machine of two busy CPUs may need minutes for
# what another does in seconds.
HANG_TIMEOUT_S = 600.0

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | None],
    description: Callable[[], object] | str = "",
    *,
    interval_s: float = 0.1,
) -> T:
    """Wait until the condition is true; returns its value then.

    description: what the failure says if it never is.

    Raises:
        AssertionError: It is not true after HANG_TIMEOUT_S.
    """
    end = time.monotonic() + HANG_TIMEOUT_S
    while not (value := condition()):
        assert time.monotonic() < end, description() if callable(description) else description
        time.sleep(interval_s)
    return value
