"""The one type of progress callback, and what stands for "no one asked for progress"."""

from collections.abc import Callable

ProgressCallback = Callable[[int, int | None, str], None]
"""Called as on_progress(done, total, note): steps done so far, steps in total (None while
unknown), and a short note on the current step ("" for none)."""


def no_progress(done: int, total: int | None, note: str) -> None:
    """Ignore progress; the default where the caller did not pass a callback."""
