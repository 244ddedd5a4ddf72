"""Progress is a bar on a terminal and log lines elsewhere."""

from pathlib import Path

from contract.cli.progress_bar import ProgressBar
from tests.programs import run_on_terminal, run_program


def test_without_a_terminal_it_is_lines(program: Path) -> None:
    lines = run_program(program, "work", "a.toml", "run.name=progress").stderr.splitlines()
    assert lines[3:] == [
        "step 0",
        "step 1",
        "step 2",
        "working: 3/3 loss 2 [x]",
        "unknown: starting",
        "unknown: reading",
        "unknown: 4/8 so far",
    ]


def test_on_a_terminal_it_is_a_bar(program: Path) -> None:
    shown = run_on_terminal(program, "work", "a.toml", "run.name=progress")
    assert "━" in shown
    assert "3/3" in shown
    assert "loss 2 [x]" in shown
    assert "step 1" in shown


def test_an_update_adds_steps_and_keeps_the_last_note() -> None:
    shown: list[tuple[int, int | None, str]] = []
    bar = ProgressBar(lambda *progress: shown.append(progress), total=None)
    bar.update(2, "reading")
    bar.update()
    bar.set(1, 4)
    bar.update(note="checking")
    assert shown == [
        (2, None, "reading"),
        (3, None, "reading"),
        (1, 4, "reading"),
        (2, 4, "checking"),
    ]
