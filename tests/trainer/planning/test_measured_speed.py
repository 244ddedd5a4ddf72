"""Training steps are timed in a process of their own."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contract.config import validate
from contract.storage import open_storage
from tests.slice_folders import put_splits
from tests.waiting import wait_until
from trainer.planning.measured_speed import (
    MeasurementError,
    StepSeconds,
    describe_error,
    measure_speed,
    run_process,
    training_speed,
)
from trainer.planning.step_time import NetworkShape

# A busy machine must not fail the test.
SCRIPT = """
import trainer
from trainer.planning import measured_speed

print("started")
measured_speed._MIN_CPU_USE = 0.0
planned = trainer.plan("slices", network={"base_filters": 2})
print(planned.plan.workers.measured_speed)
"""
OUT_OF_MEMORY = """Graph execution error:

Detected at node Tile defined at (most recent call last):
  File "script.py", line 1, in <module>

OOM when allocating tensor with shape[2,1099511627776] on CPU:0 by allocator cpu
\t [[{{node Tile}}]]
Hint: If you want to see a list of allocated tensors, add report_tensor_allocations_upon_oom.
 [Op:__inference_train_function_1]"""


def test_a_script_without_a_main_guard_measures_once_and_quietly(tmp_path: Path) -> None:
    put_splits(open_storage(str(tmp_path / "slices")))
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    started, speed = done.stdout.splitlines()
    assert started == "started"
    assert float(speed) > 0
    assert "tensorflow" not in done.stderr.lower()
    assert "warning" not in done.stderr.lower()


def test_the_speed_counts_the_samples_of_one_worker() -> None:
    shape = NetworkShape(16, 16, 2, 4, 8)
    train = {"num_workers": 3, "batch_size": 12}
    network = {"image_size": 16, "num_layers": 2, "image_channels": 3}
    data = {"source": "folder", "root": "slices", "classes": {"liver": 1, "kidney": 2}}
    config = validate({"train": train, "network": network, "data": data}, origin="test")
    # 4 samples, 3 times a forward pass, in half a second.
    assert training_speed(config, shape, 0.5) == 24 * shape.multiply_adds(3, 2)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -KILL $$", "killed, probably because the memory was full"),
        ("kill -ABRT $$", "ended by SIGABRT"),
        ("echo Traceback >&2; echo 'OSError: no library' >&2; exit 3", "code 3, OSError: no lib"),
        ("""cat; echo; echo '{"error": "InternalError: in use"}'""", "^InternalError: in use$"),
    ],
)
def test_the_reason_of_a_failed_measurement(script: str, reason: str) -> None:
    with pytest.raises(MeasurementError, match=reason):
        run_process({}, ["sh", "-c", f"ulimit -c 0; {script}"])


def test_what_libraries_print_is_not_the_result() -> None:
    script = """cat; echo; echo 'Epoch 1'; echo '{"wall": 2.0, "cpu": 3.0}'"""
    assert run_process({}, ["sh", "-c", script]) == StepSeconds(2.0, 3.0)


def test_an_error_in_the_process_is_a_reason() -> None:
    with pytest.raises(MeasurementError, match=r"^ConfigError: .*train\.epochs"):
        run_process({"train": {"epochs": 0}})


def test_a_failure_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # With a value that Python does not know, it does not start.
    monkeypatch.setenv("PYTHONMALLOC", "absent")
    with caplog.at_level(logging.WARNING):
        assert measure_speed(validate({}, origin="test"), NetworkShape(16, 16, 2, 4, 8)) is None
    assert len(caplog.records) == 1
    assert "estimated: exit code 1" in caplog.text


def test_an_interruption_ends_the_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    # In a process of its own: the interruption of one that runs tests would end these.
    # The pause of one second: subprocess.run kills only a process whose start it has recorded.
    script = f"echo $$ > '{file}'; sleep 1; kill -INT $PPID; exec sleep 3600"
    program = "import sys; from trainer.planning.measured_speed import run_process; "
    program += "run_process({}, ['sh', '-c', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", program, script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGINT, done.stderr
    command_line = Path("/proc", file.read_text().strip(), "cmdline")

    def has_ended() -> bool:
        # A killed process exists, without a command line, until its parent has removed it.
        try:
            return not command_line.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(has_ended, f"{command_line} exists")


def test_the_line_of_an_error_that_says_what_failed() -> None:
    oom = describe_error(MemoryError(OUT_OF_MEMORY))
    assert oom.startswith("MemoryError: OOM when allocating tensor with shape")
    busy = describe_error(RuntimeError("cudaSetDevice() failed. Status: out of memory"))
    assert busy == "RuntimeError: cudaSetDevice() failed. Status: out of memory"
    assert describe_error(MemoryError()) == "MemoryError: MemoryError"


def test_a_step_next_to_other_programs_is_not_used() -> None:
    assert not StepSeconds(wall=1.0, cpu=1.7).is_disturbed(2, 0)
    assert StepSeconds(wall=3.0, cpu=1.7).is_disturbed(2, 0)
    assert not StepSeconds(wall=1.0, cpu=1.7).is_disturbed(64, 0)
    assert not StepSeconds(wall=3.0, cpu=0.1).is_disturbed(2, 1)
