"""A command line of segfleet's shape, run in a process of its own as a user runs it."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.waiting import HANG_TIMEOUT_S

ROOT = Path(__file__).parents[1]

PROGRAM = '''
"""A package with one command."""
import logging
import time
import warnings

from contract.cli.app import *
from contract.cli.options import *
from contract.cli.progress_bar import progress_bar
from contract.errors import DataError

log = logging.getLogger("trainer.fit")


class Wrapped(DataError):
    """As Ray raises an error of a worker: the cause's kind, and a text that quotes its stack."""

    def __init__(self, cause):
        super().__init__("Traceback of the worker")
        self.cause = cause


app = create_app("Try things.")


@app.command(epilog=example_epilog("python -m package work configs/demo.toml train.epochs=3"))
def work(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Do [some] work."""
    import os

    chosen = load_settings(config, overrides, show_config)
    log.info("epochs %d", chosen.train.epochs)
    log.debug("detail of ours")
    log.warning("of ours")
    logging.getLogger("botocore").info("news of a library")
    logging.getLogger("botocore").warning("of a library")
    logging.getLogger("ray").warning("noise of ray")
    warnings.warn("noise of python")
    print("tensorflow", os.environ.get("TF_CPP_MIN_LOG_LEVEL"))
    name = chosen.run.name
    if name == "mistake":
        raise DataError("slices/a.png is not an image: remove it.")
    if name == "remote":
        raise Wrapped(DataError("slices/b.png is not an image: remove it."))
    if name == "bug":
        raise ValueError("ours")
    if name == "wait":
        print("waiting", flush=True)
        time.sleep(60)
    if name == "progress":
        with progress_bar("working", 3) as bar:
            for step in range(3):
                bar.update(note=f"loss {step} [x]")
                log.info("step %d", step)
        with progress_bar("nothing to do"):
            pass
        with progress_bar("unknown") as bar:
            bar.set(0, None, "starting")
            bar.set(0, None, "starting")
            bar.set(0, None, "reading")
            bar.set(2, None, "so far")
            bar.set(4, 8)


run_app(app)
'''


def program_environment() -> dict[str, str]:
    """The environment of this process without variables that change what a command prints."""
    changed = {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    quiet = {"TF_CPP_MIN_LOG_LEVEL", "PYTHONWARNINGS", "NO_COLOR"}
    return {name: value for name, value in os.environ.items() if name not in quiet} | changed


def run_program(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line; the result has its output and its exit code."""
    return subprocess.run(
        [sys.executable, str(program), *words],
        cwd=program.parent,
        env=program_environment(),
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
    )


def run_on_terminal(program: Path, *words: str) -> str:
    """What a command line prints on a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(program), *words],
        cwd=program.parent,
        env=program_environment(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    try:
        while data := os.read(leader, 65536):
            shown += data
    except OSError:
        # Linux says so when the last one who could write is gone.
        pass
    os.close(leader)
    assert process.wait(timeout=HANG_TIMEOUT_S) == 0
    return shown.decode()
