"""The supervisor keeps a command's log and state, and ends it when asked."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.jobs import job_store
from cluster.jobs.job_store import StopRequest
from cluster.jobs.supervisor import Intervals, Supervisor, list_checkpoint_ids, should_stop
from contract.config import Config
from contract.config.loader import to_toml
from contract.storage import open_storage
from tests.waiting import HANG_TIMEOUT_S, wait_until

ROOT = Path(__file__).parents[3]
QUICK = Intervals(upload_s=0.2, poll_s=0.2, kill_s=10.0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config().with_values({"storage.root": str(tmp_path), "run.name": "demo"})


@pytest.mark.parametrize(
    ("asked_s", "waits", "new", "end"),
    [
        (0.0, False, False, True),
        (0.0, True, False, False),
        (5.0, True, True, True),
        (10.0, True, False, True),
    ],
)
def test_a_command_ends_after_its_checkpoint_or_its_time(
    asked_s: float, waits: bool, new: bool, end: bool
) -> None:
    request = StopRequest(requested_at="now", timeout_s=10.0)
    assert should_stop(request, asked_s, waits, new) is end


@pytest.mark.parametrize(("word", "code", "state"), [("1", 0, "succeeded"), ("nope", 1, "failed")])
def test_log_state_and_exit_code_are_kept(
    word: str, code: int, state: str, config: Config, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    # timeit is a small program that every Python has: it prints a line, or a stack trace.
    assert Supervisor(config, "job", ["timeit", "-n1", "-r1", word], QUICK).run() == code
    jobs = job_store.jobs_storage(config)
    kept = job_store.read_job(jobs, "job")
    assert kept is not None
    assert (kept.status, kept.exit_code) == (state, code)
    printed = capfdbinary.readouterr().out
    assert printed == job_store.read_log(jobs, "job")
    assert (b"1 loop" if code == 0 else b"NameError") in printed


def test_a_command_that_is_asked_to_stop_is_ended_as_by_ctrl_c(config: Config) -> None:
    jobs = job_store.jobs_storage(config)

    def ask() -> None:
        while job_store.read_job(jobs, "job") is None:
            time.sleep(0.05)
        job_store.request_stop(jobs, "job", timeout_s=60.0)

    asking = threading.Thread(target=ask)
    asking.start()
    Supervisor(config, "job", ["http.server", "0", "--bind", "127.0.0.1"], QUICK).run()
    asking.join()
    kept = job_store.read_job(jobs, "job")
    assert kept is not None
    assert kept.status != "running"
    assert b"stopping: interrupting http.server" in job_store.read_log(jobs, "job")


def test_a_storage_that_does_not_answer_does_not_stop_the_command(
    config: Config, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "runs").write_text("in the way")
    assert Supervisor(config, "job", ["timeit", "-n1", "-r1", "1"], QUICK).run() == 0
    assert b"cannot be uploaded now" in capfdbinary.readouterr().out


def test_whole_checkpoints_of_a_training_and_records_of_a_sweep_count(tmp_path: Path) -> None:
    root = open_storage(str(tmp_path))
    train, sweep = ("trainer", "train", "x.toml"), ("tuning", "sweep", "x.toml")
    assert (
        list_checkpoint_ids(root, "demo", train)
        == list_checkpoint_ids(root, "demo", sweep)
        == set()
    )
    root.write("runs/demo/checkpoints/00001-ab/state.npz", b"half of one")
    root.write("runs/other/checkpoints/00001-ab/checkpoint.json", b"{}")
    assert list_checkpoint_ids(root, "demo", train) == set()
    root.write("runs/demo/checkpoints/00001-ab/checkpoint.json", b"{}")
    assert len(list_checkpoint_ids(root, "demo", train)) == 1
    root.write("sweeps/demo/trials/0001.json", b"{}")
    before = list_checkpoint_ids(root, "demo", sweep)
    time.sleep(1.1)  # storage tells times to the second
    root.write("sweeps/demo/trials/0001.json", b"{ }")
    assert list_checkpoint_ids(root, "demo", sweep) != before
    assert list_checkpoint_ids(root, "demo", ("trainer", "evaluate")) == set()


ORPHAN = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "cluster.jobs.supervisor", "job", sys.argv[1],
                  "http.server", "0", "--bind", "127.0.0.1"])
time.sleep(float(sys.argv[2]))
"""


def test_a_command_ends_when_ray_is_gone(config: Config, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(to_toml(config))
    subprocess.run(
        [sys.executable, "-c", ORPHAN, str(settings), "5"],
        cwd=ROOT,
        check=True,
        timeout=HANG_TIMEOUT_S,
    )
    jobs = job_store.jobs_storage(config)

    def has_ended() -> bool:
        kept = job_store.read_job(jobs, "job")
        return kept is not None and kept.exit_code is not None

    wait_until(has_ended)
    assert b"Ray is no longer running on this node" in job_store.read_log(jobs, "job")


def test_a_node_whose_python_has_no_ray_is_explained_in_one_sentence(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    script = ROOT / "cluster/jobs/supervisor.sh"
    done = subprocess.run(
        ["/bin/sh", str(script), "job", "settings.toml", "trainer", "train"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == (
        f"error: the interpreter '{python}' of the head node cannot import Ray: start Ray in an "
        "environment whose python is the first one on PATH.\n"
    )
    assert done.stderr == ""
