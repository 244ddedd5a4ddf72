"""Keeps the tables of benchmarks/README.md: one section a script, replaced by its latest run."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from contract.host_info import host_info
from contract.tensorflow_variables import set_tensorflow_variables

set_tensorflow_variables()
# TensorFlow in the processes that are measured says nothing of use.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Several processes share a GPU in some of them.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

README = Path(__file__).with_name("README.md")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options every benchmark has: --write, and --quick for a look at whether it runs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; figures mean nothing")
    return parser


def command(program: str, *words: object) -> list[str]:
    """The command line that runs a module of benchmarks/programs."""
    return [sys.executable, "-m", f"benchmarks.programs.{program}", *map(str, words)]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def publish(script: str, text: str, write: bool, file: Path = README) -> None:
    """Print a benchmark's result; with write, put it between its marks in a page.

    script: the file's name without .py, which names the section. file: benchmarks/README.md unless
    another page has the section.
    """
    env = host_info()
    made = f"{datetime.now(UTC):%Y-%m-%d}, commit {(env['commit'] or 'unknown')[:12]}"
    body = f"Measured {made} on {env['machine']}.\n\n{text}"
    print(body)
    if write:
        page = file.read_text(encoding="utf-8")
        marks = f"<!-- {script} -->", f"<!-- end of {script} -->"
        section = f"{marks[0]}\n{body}\n{marks[1]}"
        pattern = re.escape(marks[0]) + ".*?" + re.escape(marks[1])
        page, count = re.subn(pattern, lambda _: section, page, flags=re.DOTALL)
        if not count:
            raise SystemExit(f"{file} has no marks for {script}: add {' and '.join(marks)}")
        file.write_text(page, encoding="utf-8")
