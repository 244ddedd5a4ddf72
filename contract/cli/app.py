"""How every command starts and ends.

The commands of a package, in its __main__.py or in its folder commands, are thin: their arguments
have the types of contract.cli.options, and each loads its settings, calls the package and prints.
Slow libraries (TensorFlow, Ray) are imported inside a command: `--help` stays fast, and `run_app`
has silenced them by then. Exit codes: 0; 1 for a UserError, printed as one line; 2 for wrong usage;
130 for Ctrl-C; 143 for SIGTERM. A stack trace indicates a bug of segfleet.
"""

import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import typer

from contract.cli.log_setup import configure_libraries, configure_logging
from contract.config import Config
from contract.config.loader import load_config, to_toml
from contract.errors import UserError
from contract.storage import LocalStorage

log = logging.getLogger(__name__)

# Modules of the extras [train] and [serve], which a light client does not have.
_EXTRA_MODULES = {
    "cv2",
    "fastapi",
    "h5py",
    "highdicom",
    "jinja2",
    "matplotlib",
    "nibabel",
    "openvino",
    "optuna",
    "pandas",
    "prometheus_client",
    "pyarrow",
    "pydicom",
    "scipy",
    "starlette",
    "tensorboard",
    "tensorflow",
    "tf_keras",
    "uvicorn",
}


def create_app(text: str) -> typer.Typer:
    """The command line of a package, which always has subcommands; text: the start of --help."""
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


def create_command_group() -> typer.Typer:
    """The commands of one module; `app.add_typer(group)` adds them to those of its package."""
    return typer.Typer(rich_markup_mode=None)


def example_epilog(command: str) -> str:
    """The end of a command's --help: @app.command(epilog=example_epilog("segfleet train …"))."""
    # After this character a line is not wrapped, which would break it at a hyphen.
    return f"\b\nExample: {command}"


def load_settings(
    path: Path, overrides: Sequence[str] | None, show: bool = False, *, lenient: bool = False
) -> Config:
    """The settings of a command; if show, print them as TOML and exit with 0."""
    config = load_config(path, overrides or (), lenient=lenient)
    if show:
        typer.echo(to_toml(config), nl=False)
        raise typer.Exit
    return config


def write_text(path: Path, text: str) -> None:
    """Write a file that a command creates, atomically; StorageError if that is not possible."""
    LocalStorage(path.absolute().parent).write(path.name, text.encode())


def run_app(app: typer.Typer) -> None:
    """Run the command that the process was started for, and end the process with its exit code."""
    configure_libraries()
    configure_logging(verbose=False)
    handler = _TerminationHandler()
    signal.signal(signal.SIGTERM, handler)
    try:
        app()
    except UserError as error:
        log.debug("the error was raised here:", exc_info=error)
        typer.echo(f"error: {_error_message(error)}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRA_MODULES:
            raise
        typer.echo(
            f"error: this command needs {error.name}, which is not installed: "
            "pip install 'segfleet[all]'.",
            err=True,
        )
        sys.exit(1)
    except SystemExit as exit_request:
        if not handler.received or not exit_request.code:
            raise
        typer.echo("terminated.", err=True)
        sys.exit(128 + signal.SIGTERM)


class _TerminationHandler:
    """Handles SIGTERM: the command ends as by Ctrl-C, and cleans up."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the command; Ray's C++ code would lose an exception of our own."""
        self.received = True
        raise KeyboardInterrupt


def _error_message(error: UserError) -> str:
    """The sentence of an error; Ray wraps an error of a worker in one that quotes its stack."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, UserError) else error)
