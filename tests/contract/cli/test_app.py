"""The shape of a command, tried in processes of their own, as a user meets it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import program_environment, run_program
from tests.waiting import HANG_TIMEOUT_S


class TestUse:
    def test_help_has_arguments_and_an_example(self, program: Path) -> None:
        done = run_program(program, "work", "--help")
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
        assert "work" in run_program(program, "--help").stdout
        assert run_program(program, "a.toml").returncode == 2

    def test_nothing_prints_the_help(self, program: Path) -> None:
        done = run_program(program)
        assert done.returncode == 2
        assert "Try things." in done.stdout + done.stderr

    @pytest.mark.parametrize("words", [["work"], ["work", "a.toml", "--nope"], ["wrok", "a.toml"]])
    def test_wrong_usage_is_2_and_no_stack_trace(self, program: Path, words: list[str]) -> None:
        done = run_program(program, *words)
        assert done.returncode == 2
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr

    def test_show_config_prints_settings_and_nothing_else(self, program: Path) -> None:
        done = run_program(program, "work", "a.toml", "train.epochs=3", "--show-config")
        assert (done.returncode, done.stderr) == (0, "")
        (program.parent / "shown.toml").write_text(done.stdout)
        again = run_program(program, "work", "shown.toml", "--show-config")
        assert again.stdout == done.stdout
        assert "epochs = 3" in done.stdout


class TestErrors:
    @pytest.mark.parametrize(("name", "file"), [("mistake", "a.png"), ("remote", "b.png")])
    def test_a_users_mistake_is_one_line(self, program: Path, name: str, file: str) -> None:
        done = run_program(program, "work", "a.toml", f"run.name={name}")
        assert done.returncode == 1
        assert done.stderr.endswith(f"\nerror: slices/{file} is not an image: remove it.\n")
        assert "Traceback" not in done.stderr

    def test_wrong_settings_are_one_line(self, program: Path) -> None:
        done = run_program(program, "work", "a.toml", "train.epoch=3")
        assert done.returncode == 1
        assert done.stderr == (
            "error: there is no setting 'train.epoch'; did you mean train.epochs?\n"
        )

    def test_verbose_shows_where_it_was_raised(self, program: Path) -> None:
        done = run_program(program, "work", "a.toml", "--verbose", "run.name=mistake")
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert done.stderr.endswith("\nerror: slices/a.png is not an image: remove it.\n")

    def test_a_bug_of_ours_keeps_its_stack_trace(self, program: Path) -> None:
        done = run_program(program, "work", "a.toml", "run.name=bug")
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
            env=program_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        while process.stdout.readline() != "waiting\n":
            assert process.poll() is None
        process.send_signal(sent)
        _, errors = process.communicate(timeout=HANG_TIMEOUT_S)
        assert process.returncode == code
        assert errors.endswith(output)
        assert ("terminated" in errors) == bool(output)
        assert "Traceback" not in errors
