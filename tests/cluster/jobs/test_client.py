"""Jobs on a real head behind a token, as a user sends, follows, lists and stops them."""

import asyncio
import json
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.connection import WORKER_ENV
from cluster.jobs import job_package, job_store
from cluster.jobs.client import JobInfo, LogFollower, exit_code, merge_statuses
from cluster.jobs.job_store import JobRecord
from contract.config import Config
from contract.config.loader import to_toml
from contract.storage import open_storage
from tests.nodes import ROOT, Head, head_node
from tests.small import FEW_SLICES, NETWORK
from tests.waiting import HANG_TIMEOUT_S, wait_until


@pytest.fixture(scope="module")
def head(s3_server: str) -> Iterator[Head]:
    """A head of 4 logical CPUs, for all tests of this file."""
    with head_node(4) as running:
        yield running


@pytest.fixture
def settings(head: Head, s3: str, tmp_path: Path) -> Path:
    """A small run whose data and results lie in S3, to be sent to the head."""
    config = Config.model_validate(
        {
            "run": {"name": "demo"},
            "storage": {"root": f"{s3}/segfleet"},
            "cluster": {"address": head.jobs},
            "data": {"phantom": FEW_SLICES},
            "network": NETWORK,
            "train": {"num_workers": 1, "batch_size": 4, "patience": None, "preview_images": 0},
        }
    )
    path = tmp_path / "demo.toml"
    path.write_text(to_toml(config))
    return path


def jobs_kept(settings: Path) -> list[JobRecord]:
    return job_store.list_jobs(
        job_store.jobs_storage(Config.model_validate(tomllib.loads(settings.read_text())))
    )


def test_the_nodes_of_a_real_cluster_are_seen(head: Head, settings: Path) -> None:
    # Ray's own node joins after its dashboard answers.
    seen = "the cluster: nodes 1, CPUs 4, GPUs 0"
    wait_until(lambda: seen in head.run("check", str(settings)).stdout)


def test_a_command_runs_on_the_cluster_and_shows_no_secret(head: Head, settings: Path) -> None:
    address = f"cluster.address={head.jobs}"
    settings.write_text(settings.read_text().replace(head.jobs, "http://127.0.0.1:1"))
    overrides = (address, "data.phantom.train_patients=5")
    done = head.run("submit", str(settings), *overrides, "--", "trainer", "prepare")
    assert done.returncode == 0, done.stderr
    assert "5 patients" in done.stdout
    assert "limit 512 MB" in done.stderr
    assert "s3://test-" in done.stdout
    assert "succeeded (exit code 0)" in done.stderr
    listed = head.run("status", str(settings), address).stdout
    assert "succeeded (exit code 0)  trainer prepare settings.toml" in listed
    assert (
        "no Ray cluster responds at http://127.0.0.1:1" in head.run("status", str(settings)).stderr
    )
    assert "is not running: it is succeeded" in head.run("stop", str(settings), address).stderr
    shown = jobs_as_the_dashboard_shows_them(head)
    assert "AWS_ENDPOINT_URL" in shown
    assert "AWS_SECRET_ACCESS_KEY" not in shown
    assert head.token not in shown


def jobs_as_the_dashboard_shows_them(head: Head, job: dict[str, str] | None = None) -> str:
    """Ray's list of jobs; with a job, Ray's answer to sending it."""
    headers = {"Authorization": f"Bearer {head.token}", "Content-Type": "application/json"}
    sent = json.dumps(job).encode() if job else None
    asked = urllib.request.Request(f"{head.jobs}/api/jobs/", sent, headers)
    with urllib.request.urlopen(asked) as answer:
        return answer.read().decode()


def test_jobs_of_others_are_left_alone(head: Head, settings: Path) -> None:
    jobs_as_the_dashboard_shows_them(head, {"entrypoint": "echo 'not closed"})
    listed = head.run("status", str(settings))
    assert listed.returncode == 0, listed.stderr
    assert "not closed" not in listed.stdout
    assert listed.stderr == ""


@pytest.mark.parametrize(
    ("variables", "reason"),
    [({"RAY_AUTH_TOKEN": "wrong"}, "Invalid"), ({"RAY_AUTH_MODE": "disabled"}, "Missing")],
)
def test_without_the_token_nothing_is_sent(
    variables: dict[str, str], reason: str, head: Head, settings: Path
) -> None:
    done = head.run("submit", str(settings), "--", "trainer", "prepare", variables=variables)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "RAY_AUTH_MODE=token" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
    assert not jobs_kept(settings)


DRIVER = """
import ray, sys
from cluster.connection import ray_session
from contract.config import Cluster

@ray.remote
def read_worker():
    import contract, os
    return contract.__file__, os.environ["AWS_REGION"]

with ray_session(Cluster(address=sys.argv[1])) as connection:
    assert not connection.is_local
    print(ray.get(read_worker.remote()))
"""


def test_a_driver_joins_and_its_workers_get_our_code_and_where_s3_is(
    head: Head, tmp_path: Path
) -> None:
    joined = subprocess.run(
        [sys.executable, "-c", DRIVER, head.gcs],
        cwd=tmp_path,
        env={**head.client(), "PYTHONPATH": str(ROOT), "AWS_REGION": "eu-north-1"},
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
        check=False,
    )
    assert joined.returncode == 0, joined.stderr
    assert "py_modules" in joined.stdout
    assert "eu-north-1" in joined.stdout


JOB_DRIVER = """
import json, os, ray
from cluster.connection import WORKER_ENV, ray_session
from contract.config import Cluster

@ray.remote
def read_worker():
    import contract
    return {**{name: os.environ.get(name) for name in WORKER_ENV}, "code": contract.__file__}

# The settings may name the Jobs API, for the commands of a user's machine.
with ray_session(Cluster(address="http://127.0.0.1:1")):
    print("worker:", json.dumps(ray.get(read_worker.remote())))
"""


def test_the_workers_of_a_job_that_ray_submits_get_our_variables(
    head: Head, tmp_path: Path
) -> None:
    folder = job_package.build(tmp_path / "job", Config()).folder
    (folder / "driver.py").write_text(JOB_DRIVER)
    changed = {"TF_CPP_MIN_LOG_LEVEL": "1"}
    done = head.submit_by_hand(folder, "driver.py", variables=changed)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("worker: ")]
    worker = json.loads(line.removeprefix("worker: "))
    assert "working_dir_files" in worker.pop("code")
    assert worker == {**WORKER_ENV, **changed}


def test_ctrl_c_detaches_and_stop_waits_for_a_checkpoint(head: Head, settings: Path) -> None:
    words = ("submit", str(settings), "--", "trainer", "train", "train.epochs=10000")
    following = subprocess.Popen(
        [sys.executable, "-m", "cluster", *words],
        cwd=ROOT,
        env=head.client(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(checkpoints(settings)) > 0)
        following.send_signal(signal.SIGINT)
        _, output = following.communicate(timeout=HANG_TIMEOUT_S)
    finally:
        following.kill()
    assert following.returncode == 130
    assert "continues without this terminal" in output
    before = checkpoints(settings)
    wait_until(lambda: checkpoints(settings) != before)
    at_request = checkpoints(settings)
    asked = head.run("stop", str(settings))
    assert "after its next checkpoint" in asked.stdout
    ended = head.run("logs", str(settings))
    assert ended.returncode == 130, ended.stdout + ended.stderr
    assert "stop requested" in ended.stdout
    assert ended.stderr.endswith(": stopped (exit code 130)\n")
    assert "  stopped (exit code 130)  " in head.run("status", str(settings)).stdout
    # The next checkpoint may be written before the command that asks for it has ended.
    root = open_storage(tomllib.loads(settings.read_text())["storage"]["root"])
    (requested,) = (
        entry.modified for entry in root.list_objects() if entry.key.endswith("/stop.json")
    )
    written = max(
        entry.modified
        for entry in root.list_objects("runs/demo")
        if entry.key.endswith("/checkpoint.json")
    )
    # Both are cut off to seconds, so that they may be equal.
    assert written >= requested
    assert checkpoints(settings) - at_request
    assert [(one.status, one.exit_code) for one in jobs_kept(settings)] == [("stopped", 130)]
    assert "is not running" in head.run("stop", str(settings)).stderr


def test_a_failed_command_reports_why_and_outlives_its_head(head: Head, settings: Path) -> None:
    """The last test of this file, as it ends the head."""
    words = ("submit", str(settings), "--detach", "--", "trainer", "prepare")
    sent = head.run(*words, "data.source=folder", "data.root=s3://no-such-bucket/slices")
    assert sent.returncode == 0, sent.stderr
    followed = head.run("logs", str(settings))
    head.stop()
    kept = head.run("logs", str(settings))
    for output in (followed, kept):
        assert output.returncode == 1
        assert "error: " in output.stdout
        assert "no-such-bucket" in output.stdout
        assert "Traceback" not in output.stdout + output.stderr
    listed = head.run("status", str(settings))
    assert "failed (exit code 1)" in listed.stdout
    assert "read from the storage only: no Ray cluster responds" in listed.stderr
    lost = head.run("submit", str(settings), "--", "trainer", "prepare")
    assert lost.returncode == 1
    assert lost.stderr.startswith("error: no Ray cluster responds")


def checkpoints(settings: Path) -> set[str]:
    """Every checkpoint of the run that counts."""
    root = open_storage(tomllib.loads(settings.read_text())["storage"]["root"])
    keys = {entry.key for entry in root.list_objects("runs/demo")}
    return {key for key in keys if key.endswith("/checkpoint.json")}


def test_a_log_read_twice_is_written_once() -> None:
    written: list[str] = []
    tail = LogFollower(written.append)

    async def texts(*pieces: str) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    asyncio.run(tail.follow(texts("one\n", "two\nth")))
    asyncio.run(tail.follow(texts("one\ntwo\n", "three\n")))
    assert "".join(written) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("succeeded", 0, 0),
        ("failed", 3, 3),
        ("failed", None, 1),
        ("stopped", None, 1),
        ("lost", None, 1),
    ],
)
def test_the_exit_code_of_a_job(state: str, code: int | None, expected: int) -> None:
    assert exit_code(state, code) == expected


def kept(state: job_store.Status, code: int | None = None) -> JobRecord:
    return JobRecord(
        job="a", command=("trainer",), status=state, started_at="1", last_seen="2", exit_code=code
    )


def seen(state: str, ended: bool, code: int | None = None) -> JobInfo:
    return JobInfo("a", "demo", "trainer", state, "1", ended, code, "")


@pytest.mark.parametrize(
    ("ray_knows", "storage_knows", "reachable", "state", "code", "live"),
    [
        ([seen("running", False)], [kept("running")], True, "running", None, True),
        ([seen("pending", False)], [], True, "pending", None, True),
        ([], [kept("running")], True, "lost", None, False),
        ([], [kept("running")], False, "running at 2", None, False),
        ([seen("failed", True, 1)], [kept("stopped", 130)], True, "stopped", 130, False),
        ([seen("failed", True, 137)], [kept("running")], True, "failed", 137, False),
    ],
)
def test_what_ray_and_the_storage_know_becomes_one_line(
    ray_knows: list[JobInfo],
    storage_knows: list[JobRecord],
    reachable: bool,
    state: str,
    code: int | None,
    live: bool,
) -> None:
    (line,) = merge_statuses(ray_knows, storage_knows, reachable)
    assert (line.status, line.exit_code, line.is_active) == (state, code, live)
