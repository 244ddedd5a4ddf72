"""Progress: a bar in a terminal and in a notebook, log lines at intervals elsewhere."""

import html
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contract.progress import ProgressCallback

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

# Seconds between two log lines without a terminal.
_LOG_INTERVAL_S = 10.0
# Seconds between two updates in a notebook, which stores each of them for a moment.
_NOTEBOOK_INTERVAL_S = 0.3


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
    from rich.console import Console  # takes 30 ms, which `--help` does not need

    console = Console(stderr=True)
    if console.is_terminal:
        context = _rich_display(title, console)
    elif console.is_jupyter:
        context = _notebook_display(title)
    else:
        context = _log_display(title)
    with context as display:
        bar = ProgressBar(display, total)
        bar.update(0)
        yield bar


@contextmanager
def _rich_display(title: str, console: "Console") -> Iterator[ProgressCallback]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

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
def _notebook_display(title: str) -> Iterator[ProgressCallback]:
    """An HTML progress bar below the cell; needs no widgets."""
    from IPython.display import HTML, DisplayHandle

    start = last_shown = time.monotonic()
    handle = DisplayHandle()
    handle.display(HTML(""))
    content = ""

    def show() -> None:
        nonlocal last_shown
        last_shown = time.monotonic()
        handle.update(HTML(content))

    def display_progress(done: int, total: int | None, note: str) -> None:
        nonlocal content
        value = f"value={done} max={total}" if total else ""
        count = f"{done}/{total} " if total else ""
        seconds = f"({time.monotonic() - start:.0f} s)"
        text = " ".join([f"{title}:", *f"{count}{note}".split(), seconds])
        content = f"<progress {value}></progress> {html.escape(text)}"
        if time.monotonic() - last_shown >= _NOTEBOOK_INTERVAL_S:
            show()

    try:
        yield display_progress
    finally:
        # A bar without a total never stops moving.
        content = content.replace("<progress >", "<progress value=1 max=1>")
        show()


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
