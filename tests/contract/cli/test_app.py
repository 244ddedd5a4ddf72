"""The shape of a command, tried in processes of their own, as a user meets it."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = '''
"""A package with one command."""
import logging
import time
import warnings

from contract.cli.app import *
from contract.cli.options import *
from contract.cli.progress import progress_bar
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


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A command line of our shape, and a file of settings next to it."""
    (tmp_path / "package.py").write_text(PROGRAM)
    (tmp_path / "a.toml").write_text('[run]\nname = "try"\n')
    return tmp_path / "package.py"


def environment() -> dict[str, str]:
    """This process's, without what would change a command's looks."""
    changed = {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    quiet = {"TF_CPP_MIN_LOG_LEVEL", "PYTHONWARNINGS", "NO_COLOR"}
    return {name: value for name, value in os.environ.items() if name not in quiet} | changed


def ran(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What a command line printed, and its exit code."""
    return subprocess.run(
        [sys.executable, str(program), *words],
        cwd=program.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestUse:
    def test_help_has_arguments_and_an_example(self, program: Path) -> None:
        done = ran(program, "work", "--help")
        assert done.returncode == 0
        for text in (
            "CONFIG",
            "[SECTION.KEY=VALUE]",
            "--show-config",
            "--verbose",
            "Do [some] work.",
            "Example: python -m package work configs/demo.toml train.epochs=3",
        ):
            assert text in done.stdout

    def test_a_single_command_still_needs_its_name(self, program: Path) -> None:
        assert "work" in ran(program, "--help").stdout
        assert ran(program, "a.toml").returncode == 2

    def test_nothing_prints_the_help(self, program: Path) -> None:
        done = ran(program)
        assert done.returncode == 2
        assert "Try things." in done.stdout + done.stderr

    @pytest.mark.parametrize("words", [["work"], ["work", "a.toml", "--nope"], ["wrok", "a.toml"]])
    def test_wrong_usage_is_2_and_no_stack_trace(self, program: Path, words: list[str]) -> None:
        done = ran(program, *words)
        assert done.returncode == 2
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr

    def test_show_config_prints_settings_and_nothing_else(self, program: Path) -> None:
        done = ran(program, "work", "a.toml", "train.epochs=3", "--show-config")
        assert (done.returncode, done.stderr) == (0, "")
        (program.parent / "shown.toml").write_text(done.stdout)
        again = ran(program, "work", "shown.toml", "--show-config")
        assert again.stdout == done.stdout
        assert "epochs = 3" in done.stdout


class TestMessages:
    def test_quiet_is_our_news_and_libraries_warnings(self, program: Path) -> None:
        done = ran(program, "work", "a.toml", "train.epochs=3")
        assert done.returncode == 0
        assert done.stdout == "tensorflow 3\n"
        assert done.stderr.splitlines() == [
            "epochs 3",
            "warning: of ours",
            "warning: botocore: of a library",
        ]

    def test_verbose_is_all(self, program: Path) -> None:
        done = ran(program, "work", "--verbose", "a.toml")
        assert done.stdout == "tensorflow None\n"
        for text in (
            "DEBUG trainer.fit: detail of ours",
            "INFO botocore: news of a library",
            "WARNING ray: noise of ray",
            "noise of python",
        ):
            assert text in done.stderr

    def test_the_users_own_environment_stands(self, program: Path) -> None:
        done = subprocess.run(
            [sys.executable, str(program), "work", "a.toml"],
            cwd=program.parent,
            env=environment() | {"TF_CPP_MIN_LOG_LEVEL": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == "tensorflow 1\n"


class TestErrors:
    @pytest.mark.parametrize(("name", "file"), [("mistake", "a.png"), ("remote", "b.png")])
    def test_a_users_mistake_is_one_line(self, program: Path, name: str, file: str) -> None:
        done = ran(program, "work", "a.toml", f"run.name={name}")
        assert done.returncode == 1
        assert done.stderr.endswith(f"\nerror: slices/{file} is not an image: remove it.\n")
        assert "Traceback" not in done.stderr

    def test_wrong_settings_are_one_line(self, program: Path) -> None:
        done = ran(program, "work", "a.toml", "train.epoch=3")
        assert done.returncode == 1
        assert done.stderr == (
            "error: there is no setting 'train.epoch'; did you mean train.epochs?\n"
        )

    def test_verbose_shows_where_it_was_raised(self, program: Path) -> None:
        done = ran(program, "work", "a.toml", "--verbose", "run.name=mistake")
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert done.stderr.endswith("\nerror: slices/a.png is not an image: remove it.\n")

    def test_a_bug_of_ours_keeps_its_stack_trace(self, program: Path) -> None:
        done = ran(program, "work", "a.toml", "run.name=bug")
        assert done.returncode == 1
        assert done.stderr.rstrip().endswith("ValueError: ours")
        assert "Traceback (most recent call last)" in done.stderr

    @pytest.mark.parametrize(
        ("sent", "code", "output"),
        [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, "terminated.\n")],
    )
    def test_ctrl_c_and_sigterm_end_a_command_without_a_trace(
        self, program: Path, sent: signal.Signals, code: int, output: str
    ) -> None:
        process = subprocess.Popen(
            [sys.executable, str(program), "work", "a.toml", "run.name=wait"],
            cwd=program.parent,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        while process.stdout.readline() != "waiting\n":
            assert process.poll() is None
        process.send_signal(sent)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code
        assert errors.endswith(output)
        assert ("terminated" in errors) == bool(output)
        assert "Traceback" not in errors


class TestProgress:
    def test_without_a_terminal_it_is_lines(self, program: Path) -> None:
        lines = ran(program, "work", "a.toml", "run.name=progress").stderr.splitlines()
        assert lines[3:] == [
            "step 0",
            "step 1",
            "step 2",
            "working: 3/3 loss 2 [x]",
            "unknown: starting",
            "unknown: reading",
            "unknown: 4/8 so far",
        ]

    def test_on_a_terminal_it_is_a_bar(self, program: Path) -> None:
        shown = on_a_terminal(program, "work", "a.toml", "run.name=progress")
        assert "━" in shown
        assert "3/3" in shown
        assert "loss 2 [x]" in shown
        assert "step 1" in shown


def on_a_terminal(program: Path, *words: str) -> str:
    """What a command draws on a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(program), *words],
        cwd=program.parent,
        env=environment(),
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
    assert process.wait(timeout=30) == 0
    return shown.decode()
