"""The benchmark of GPUs runs on CPUs too, with tiny networks."""

import sys

from benchmarks import gpu


def test_training_steps_are_measured_with_xla_and_without() -> None:
    lines = gpu.steps("quick", 300.0).splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[1:3] for row in rows] == [["bfloat16", "no"], ["bfloat16", "yes"]]
    assert all(float(row[3]) > 0 for row in rows)


def test_augmentation_and_the_wait_for_data_are_measured() -> None:
    lines = gpu.pipeline("quick", 300.0).splitlines()[2:]
    values = [float(line.strip("|").split("|")[1]) for line in lines]
    assert len(values) == 4
    assert all(value > 0 for value in values)


def test_what_was_printed_before_the_limit_is_kept() -> None:
    program = 'import time; print("[1, 2]", flush=True); time.sleep(600)'
    text = gpu.lines_table(["a", "b"], [sys.executable, "-c", program], 5.0)
    assert text.splitlines()[2] == "| 1 | 2 |"
    assert text.endswith("Not complete: the limit of 5 s was reached.")
