"""Progress of commands: a bar on a terminal, log lines at intervals elsewhere."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from contract.progress import ProgressCallback

log = logging.getLogger(__name__)

# Seconds between two log lines without a terminal.
_LOG_INTERVAL_S = 10.0


class ProgressBar:
    """A progress bar; made by progress_bar. Its method `set` is a ProgressCallback."""

    def __init__(self, display: ProgressCallback, total: int | None) -> None:
        """display: draws (steps done, steps in total or None, note)."""
        self._display, self._done, self._total, self._note = display, 0, total, ""

    def update(self, n: int = 1, note: str = "") -> None:
        """Add n steps; a note replaces the one that is shown."""
        self.set(self._done + n, self._total, note)

    def set(self, done: int, total: int | None, note: str = "") -> None:
        """Set how many steps are done, and how many there are in total."""
        self._done, self._total, self._note = done, total, note or self._note
        self._display(self._done, self._total, self._note)


@contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[ProgressBar]:
    """Show the progress of work with this many steps; None if the number is not known yet."""
    console = Console(stderr=True)
    with _rich_display(title, console) if console.is_terminal else _log_display(title) as display:
        bar = ProgressBar(display, total)
        bar.update(0)
        yield bar


@contextmanager
def _rich_display(title: str, console: Console) -> Iterator[ProgressCallback]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, note="")

        def display(done: int, total: int | None, note: str) -> None:
            if done < progress.tasks[0].completed:
                progress.reset(task)  # another pass over the same items, with a new clock
            progress.update(task, completed=done, total=total, note=note)

        yield display


@contextmanager
def _log_display(title: str) -> Iterator[ProgressCallback]:
    start = last_logged = time.monotonic()
    text = logged_text = ""

    def log_line() -> None:
        nonlocal last_logged, logged_text
        last_logged, logged_text = time.monotonic(), text
        seconds = round(last_logged - start)
        log.info("%s: %s%s", title, text, f" ({seconds} s)" if seconds else "")

    def display(done: int, total: int | None, note: str) -> None:
        nonlocal text
        of_total = f"/{total}" if total else ""
        text = f"{done}{of_total} {note}".rstrip() if done else note
        # A note before the first step is logged at once, because no step follows it for a while.
        is_new_phase = not done and total is None and text != logged_text
        if is_new_phase or time.monotonic() - last_logged >= _LOG_INTERVAL_S:
            log_line()

    try:
        yield display
    finally:
        if logged_text != text:
            log_line()
