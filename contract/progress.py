"""The type of progress callbacks."""

from collections.abc import Callable

ProgressCallback = Callable[[int, int | None, str], None]
"""Called as on_progress(done, total, note): finished steps, total steps (None while unknown), and a
short note on the current step ("" for none)."""


def no_progress(done: int, total: int | None, note: str) -> None:
    """Ignore progress; the default of on_progress."""
