"""The watchdog ends a process that makes no progress, and only that one."""

import subprocess
import sys
from pathlib import Path

from trainer.training.watchdog import EXIT_CODE

ROOT = Path(__file__).parents[3]

PROGRAM = """
import sys, time
from trainer.training.watchdog import Watchdog
with Watchdog(float(sys.argv[1]), lambda seconds: print(f'stall {seconds}')) as watchdog:
    for _ in range(int(sys.argv[2])):
        time.sleep(0.1)
        watchdog.beat()
    time.sleep(float(sys.argv[3]))
"""


def ran(limit: float, beats: int, pause: float) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM, str(limit), str(beats), str(pause)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_process_without_a_beat_is_ended_with_a_word() -> None:
    output = ran(limit=0.5, beats=3, pause=60)
    assert output.returncode == EXIT_CODE
    assert "train.stall_timeout_s" in output.stderr


def test_a_process_that_beats_lives() -> None:
    assert ran(limit=30, beats=3, pause=0).returncode == 0
