"""Logging of commands: segfleet as plain lines, libraries silent unless --verbose."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from contract.tensorflow_variables import set_tensorflow_variables

PACKAGES = ("contract", "cluster", "trainer", "tuning", "inference")
# These create their own handlers, or warn about things that a user cannot change.
_NOISY_LOGGERS = ("tensorflow", "absl", "ray", "py.warnings")
# Read by C++ code and by child processes when they start; a value set by the user is kept.
_QUIET_ENV = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "PYTHONWARNINGS": "ignore",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def configure_libraries() -> None:
    """Set up libraries before they are imported, also those of child processes.

    They print no messages, and TensorFlow reads its variables (contract.tensorflow_variables).
    """
    set_tensorflow_variables()
    for name, value in _QUIET_ENV.items():
        os.environ.setdefault(name, value)
    if _QUIET_TENSORFLOW not in sys.meta_path:
        sys.meta_path.insert(0, _QUIET_TENSORFLOW)


def enable_verbose(verbose: bool) -> bool:
    """Let libraries print messages, and log everything, if verbose.

    Called before any command imports a library.
    """
    if verbose:
        for name, value in _QUIET_ENV.items():
            if os.environ.get(name) == value:
                del os.environ[name]
        if _QUIET_TENSORFLOW in sys.meta_path:
            sys.meta_path.remove(_QUIET_TENSORFLOW)
        configure_logging(verbose=True)
    return verbose


def configure_logging(verbose: bool) -> None:
    """Log to standard error: everything if verbose, else segfleet's messages and warnings."""
    handler = _StderrHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        if verbose
        else _PlainFormatter()
    )
    logging.basicConfig(
        handlers=[handler], level=logging.INFO if verbose else logging.WARNING, force=True
    )
    logging.captureWarnings(capture=True)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)


class _QuietTensorFlow(MetaPathFinder):
    """Suppresses what the C++ code of TensorFlow prints while it is imported.

    Before its logging is initialized it ignores all levels and writes directly to standard error
    (seen with TensorFlow 2.21: "Could not find cuda drivers", twice).
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """TensorFlow's own spec with a silent loader; None for any other module."""
        if fullname != "tensorflow":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            exec_module = spec.loader.exec_module

            def exec_silently(module: ModuleType) -> None:
                with _suppress_stderr():
                    exec_module(module)

            spec.loader.exec_module = exec_silently
        return spec


_QUIET_TENSORFLOW = _QuietTensorFlow()


@contextmanager
def _suppress_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to /dev/null for the duration of the block, also for C++ code."""
    sys.stderr.flush()
    original = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(devnull)


class _StderrHandler(logging.Handler):
    """Writes to the current sys.stderr, which a progress bar may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        sys.stderr.write(self.format(record) + "\n")


class _PlainFormatter(logging.Formatter):
    """Information of segfleet as plain lines, everything else with its level and source."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        text = super().format(record)
        if record.levelno == logging.INFO:
            return text
        is_ours = record.name.split(".")[0] in PACKAGES
        source = "" if is_ours else f"{record.name}: "
        return f"{record.levelname.lower()}: {source}{text}"
