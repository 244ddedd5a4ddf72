"""The shape all commands share: options, help, logging, progress, errors and exit codes.

A room's __main__.py is thin: it declares commands with these types, and each loads its settings,
calls the room and prints. What is slow to import (TensorFlow, Ray) it imports inside a command:
`--help` stays quick, and `run` has quietened them by then. Exit codes: 0; 1 for a UserError, told
in one line; 2 for wrong usage; 130 for Ctrl-C; 143 for SIGTERM. A stack trace is a bug of ours.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from contract.config import Config, Storage
from contract.config.loader import load_config, to_toml
from contract.errors import UserError

log = logging.getLogger(__name__)

_ROOMS = ("contract", "cluster", "trainer", "tuning", "inference")
# These make handlers of their own or warn of what a user cannot change.
_NOISY = ("tensorflow", "absl", "ray", "py.warnings")
# Read by C++ code and by child processes when they start; a user's own value stands.
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "PYTHONWARNINGS": "ignore",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
# Seconds between two lines of progress where there is no terminal.
_LINE_EVERY_S = 10.0

Show = Callable[[int, int | None, str], None]

DEFAULT_STORAGE_ROOT = Storage().root

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The TOML file of settings (docs/settings.md).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Settings that replace those of CONFIG (docs/settings.md).",
    ),
]
BundleReference = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE", help="A bundle: its folder or s3:// address, NAME@STAGE or NAME@VERSION."
    ),
]
StorageRoot = Annotated[
    str, typer.Option("--storage", help="Folder or s3:// address that holds the registry.")
]
ShowConfig = Annotated[
    bool, typer.Option("--show-config", help="Print all settings as TOML, do nothing else.")
]


class ProgressBar:
    """Told how the work gets on, it shows it; made by progress."""

    def __init__(self, show: Show, total: int | None) -> None:
        """show: draws (steps done, steps in all or None, note)."""
        self._show, self._done, self._total, self._note = show, 0, total, ""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Add steps done; a note replaces the one shown."""
        self.set(self._done + steps, self._total, note)

    def set(self, done: int, total: int | None, note: str = "") -> None:
        """Say how many steps are done by now, and of how many."""
        self._done, self._total, self._note = done, total, note or self._note
        self._show(self._done, self._total, self._note)


def create_app(text: str) -> typer.Typer:
    """A room's command line, which always has subcommands; text is what --help begins with."""
    app = typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        # Plain help and one-line errors; brackets in a text stay as they are.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    # Without a callback, typer drops the name of a command that is the only one.
    app.callback()(lambda: None)
    return app


def example_epilog(line: str) -> str:
    """The epilog of a command's --help: @app.command(epilog=example("python -m …"))."""
    # After this mark a line is not wrapped, which would break it at a hyphen.
    return f"\b\nExample: {line}"


def load_settings(path: Path, overrides: Sequence[str] | None, show: bool = False) -> Config:
    """The settings a command was given; with show, print them as TOML and end with 0."""
    config = load_config(path, overrides or ())
    if show:
        typer.echo(to_toml(config), nl=False)
        raise typer.Exit
    return config


def run_app(app: typer.Typer) -> None:
    """Run the command the process was started for, and end the process with its exit code."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    sys.meta_path.insert(0, _QUIET_TENSORFLOW)
    _set_up_logging(verbose=False)
    termination = _Termination()
    signal.signal(signal.SIGTERM, termination)
    try:
        app()
    except UserError as error:
        log.debug("the error was raised here:", exc_info=error)
        typer.echo(f"error: {_told(error)}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if not termination.asked or not end.code:
            raise
        typer.echo("terminated.", err=True)
        sys.exit(128 + signal.SIGTERM)


class _Termination:
    """What SIGTERM does: the command ends as by Ctrl-C, and tidies up on its way."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the command; Ray would lose an exception of our own in its C++ code."""
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[ProgressBar]:
    """Show how far work of so many steps is: a bar on a terminal, a line now and then elsewhere.

    total: None where it is not known yet. Gives an Advance, to be called as the work gets on.
    """
    console = Console(stderr=True)
    with _bar(title, console) if console.is_terminal else _lines(title) as show:
        advance = ProgressBar(show, total)
        advance(0)
        yield advance


@contextmanager
def _bar(title: str, console: Console) -> Iterator[Show]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, note="")

        def show(done: int, total: int | None, note: str) -> None:
            if done < bar.tasks[0].completed:
                bar.reset(task)  # another pass over the same, with a clock of its own
            bar.update(task, completed=done, total=total, note=note)

        yield show


@contextmanager
def _lines(title: str) -> Iterator[Show]:
    start = last = time.monotonic()
    text = told = ""

    def tell() -> None:
        nonlocal last, told
        last, told = time.monotonic(), text
        seconds = round(last - start)
        log.info("%s: %s%s", title, text, f" ({seconds} s)" if seconds else "")

    def show(done: int, total: int | None, note: str) -> None:
        nonlocal text
        share = f"/{total}" if total else ""
        text = f"{done}{share} {note}".rstrip() if done else note
        # What comes before any step is told when it begins: nothing else moves while it lasts.
        begins = not done and total is None and text != told
        if begins or time.monotonic() - last >= _LINE_EVERY_S:
            tell()

    try:
        yield show
    finally:
        if told != text:
            tell()


class _QuietImport(MetaPathFinder):
    """Keeps quiet what TensorFlow's C++ code says while it is imported.

    Before its logging is set up it heeds no level and writes straight to the process's standard
    error (seen with TensorFlow 2.21: "Could not find cuda drivers", twice).
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """TensorFlow's own spec, with a loader that is silent; None for any other module."""
        if fullname != "tensorflow":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_silently(module: ModuleType) -> None:
                with _no_standard_error():
                    load(module)

            spec.loader.exec_module = load_silently
        return spec


_QUIET_TENSORFLOW = _QuietImport()


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """File descriptor 2 leads nowhere for the time of the block, for C++ code too."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Lines(logging.Handler):
    """Log records as lines on whatever sys.stderr is, so that a bar can move out of their way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        sys.stderr.write(self.format(record) + "\n")


class _Plain(logging.Formatter):
    """Our news as plain lines, everything else with its level and source."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        text = super().format(record)
        if record.levelno == logging.INFO:
            return text
        ours = record.name.split(".")[0] in _ROOMS
        source = "" if ours else f"{record.name}: "
        return f"{record.levelname.lower()}: {source}{text}"


def _set_up_logging(verbose: bool) -> None:
    handler = _Lines()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        if verbose
        else _Plain()
    )
    logging.basicConfig(
        handlers=[handler], level=logging.INFO if verbose else logging.WARNING, force=True
    )
    logging.captureWarnings(capture=True)
    for name in _ROOMS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)


def _be_verbose(verbose: bool) -> bool:
    """Undo the quiet; called while the command line is read, before any command imports."""
    if verbose:
        for name, value in _QUIET.items():
            if os.environ.get(name) == value:
                del os.environ[name]
        if _QUIET_TENSORFLOW in sys.meta_path:
            sys.meta_path.remove(_QUIET_TENSORFLOW)
        _set_up_logging(verbose=True)
    return verbose


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        callback=_be_verbose,
        is_eager=True,
        help="Show all that our code and the libraries have to say.",
    ),
]


def _told(error: UserError) -> str:
    """The error's sentence; Ray wraps an error of a worker into one that quotes its stack."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, UserError) else error)
