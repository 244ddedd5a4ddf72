"""What a command logs: segfleet's messages and the warnings of libraries, or everything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import program_environment, run_program
from tests.waiting import HANG_TIMEOUT_S


def test_quiet_is_our_news_and_libraries_warnings(program: Path) -> None:
    done = run_program(program, "work", "a.toml", "train.epochs=3")
    assert done.returncode == 0
    assert done.stdout == "tensorflow 3\n"
    assert done.stderr.splitlines() == [
        "epochs 3",
        "warning: of ours",
        "warning: botocore: of a library",
    ]


def test_verbose_is_all(program: Path) -> None:
    done = run_program(program, "work", "--verbose", "a.toml")
    assert done.stdout == "tensorflow None\n"
    for text in (
        "DEBUG trainer.fit: detail of ours",
        "INFO botocore: news of a library",
        "WARNING ray: noise of ray",
        "noise of python",
    ):
        assert text in done.stderr


def test_the_users_own_environment_stands(program: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(program), "work", "a.toml"],
        cwd=program.parent,
        env=program_environment() | {"TF_CPP_MIN_LOG_LEVEL": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
    )
    assert done.stdout == "tensorflow 1\n"


NOISY_TENSORFLOW = """
import os
os.write(2, b"message of C++ code")
"""
"""A stand-in for TensorFlow, whose C++ code writes to file descriptor 2 while it is imported."""


def import_noisy_tensorflow(folder: Path, statement: str) -> str:
    """The standard error of a process that imports it after this statement."""
    (folder / "tensorflow.py").write_text(NOISY_TENSORFLOW)
    script = (
        "import sys; from contract.cli.log_setup import *; "
        f"{statement}; import tensorflow; sys.stderr.write('after the import')"
    )
    environment = program_environment()
    environment["PYTHONPATH"] = f"{folder}{os.pathsep}{environment['PYTHONPATH']}"
    completed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_TIMEOUT_S,
    )
    return completed.stderr


@pytest.mark.parametrize(
    ("statement", "printed"),
    [
        ("configure_libraries()", "after the import"),
        ("configure_libraries(); enable_verbose(False)", "after the import"),
        (
            "configure_libraries(); enable_verbose(True)",
            "message of C++ codeafter the import",
        ),
    ],
)
def test_the_import_of_tensorflow_is_silent_unless_verbose(
    tmp_path: Path, statement: str, printed: str
) -> None:
    assert import_noisy_tensorflow(tmp_path, statement) == printed
