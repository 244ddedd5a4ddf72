"""Commands of clusters and jobs that need no cluster, and what they print without one."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster.__main__ import app
from cluster.jobs import job_store
from cluster.jobs.job_store import JobRecord
from contract.config import Config
from contract.config.loader import to_toml
from contract.errors import ClusterError
from tests.nodes import ROOT, free_port, without_ray


class Closed(BaseHTTPRequestHandler):
    """What the dashboard of another program's cluster answers."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"Unauthorized: Missing authentication token")


def test_a_cluster_that_asks_for_a_token_is_reported(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Closed) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        output = subprocess.run(
            [sys.executable, "-m", "cluster", "status", str(written(tmp_path, address))],
            cwd=ROOT,
            env=without_ray(),
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
        thread.join()
    assert output.returncode == 1
    assert "running at 2" in output.stdout
    assert output.stderr.startswith(f"error: Ray at {address} requires a token that this command")
    for text in ("cluster.address", "RAY_AUTH_TOKEN"):
        assert text in output.stderr
    assert output.stderr.count("\n") == 1


def written(folder: Path, address: str) -> Path:
    """The settings of a run that has a job, and whose cluster is at an address."""
    config = Config.model_validate(
        {
            "run": {"name": "demo"},
            "storage": {"root": str(folder / "store")},
            "cluster": {"address": address},
        }
    )
    record = JobRecord(
        job="a",
        command=("trainer",),
        status="running",
        started_at="1",
        last_seen="2",
        exit_code=None,
    )
    job_store.write_job(job_store.jobs_storage(config), record)
    path = folder / "demo.toml"
    path.write_text(to_toml(config))
    return path


def test_a_job_of_which_nothing_reports_how_it_ended_has_not_succeeded(tmp_path: Path) -> None:
    output = print_log(written(tmp_path, f"http://127.0.0.1:{free_port()}"))
    assert output.returncode == 1
    assert "running at 2" in output.stderr
    assert "Traceback" not in output.stderr


def print_log(path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cluster", "logs", str(path), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("a", "run.name=demo"), "job a: running at 2"),
        (("run.name=demo", "a"), "job a: running at 2"),
        (("run.name=demo", "b"), "run 'demo' has no job b"),
        (("run.name=other",), "run 'other' has no job"),
        (("a", "b"), "error: a b are several jobs: name one of them"),
        (("run.nam=demo",), "did you mean run.name?"),
    ],
)
def test_overrides_and_the_name_of_a_job_follow_the_settings(
    words: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    output = print_log(written(tmp_path, f"http://127.0.0.1:{free_port()}"), *words)
    assert output.returncode == 1
    assert reason in output.stderr


def test_the_planned_cluster_is_checked_at_its_largest(tmp_path: Path) -> None:
    settings = tmp_path / "cloud.toml"
    space = {"train.learning_rate": {"loguniform": (1e-4, 1e-2)}}
    config = Config().with_values(
        {
            "storage.root": "s3://kept/segfleet",
            "cluster.cloud.ssh_from": "203.0.113.7/32",
            "cluster.cloud.max_workers": 8,
            "sweep.space": space,
        }
    )
    settings.write_text(to_toml(config))
    words = ("check", str(settings), "--cloud", "train.num_workers=8", "train.gpus_per_worker=1")

    def checked(*more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "cluster", *words, *more],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    rejected = checked("sweep.num_workers=1")
    assert rejected.returncode == 1
    assert "set sweep.max_concurrent_trials to 8 to make the cluster grow" in rejected.stdout
    output = checked("sweep.num_workers=1", "sweep.max_concurrent_trials=8")
    assert output.returncode == 0, output.stdout + output.stderr
    assert "nodes 9, CPUs 34, GPUs 8" in output.stdout
    assert (
        "training  yes 8 training workers of 1 CPU and 1 GPU: the cluster can hold 8"
        in output.stdout
    )


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a run on a local cluster of four CPUs, with a container image."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = Config().with_values(
        {
            "run.name": "My_run",
            "storage.root": "s3://bucket/segfleet",
            "cluster.cpus": 4,
            "cluster.kubernetes.image": "example.org/segfleet:0.2.0",
        }
    )
    path = tmp_path / "demo.toml"
    path.write_text(to_toml(config))
    return path


@pytest.mark.parametrize(
    ("workers", "exit_code", "text"),
    [
        (4, 0, "training  yes 4 training workers of 1 CPU: the cluster can hold 4"),
        (8, 1, "training  no  8 training workers of 1 CPU: the cluster can hold 4"),
    ],
)
def test_a_local_cluster_is_checked_without_starting_it(
    settings: Path, workers: int, exit_code: int, text: str
) -> None:
    result = CliRunner().invoke(app, ["check", str(settings), f"train.num_workers={workers}"])
    assert result.exit_code == exit_code, result.output
    first, *lines = result.stdout.splitlines()
    assert first.startswith("a local cluster on this machine: nodes 1, CPUs 4, GPUs ")
    assert text in lines


def test_a_manifest_is_written_and_nothing_is_submitted(settings: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifests" / "job.yaml"
    words = ["submit", str(settings), "train.epochs=3", "--write", str(manifest)]
    result = CliRunner().invoke(app, [*words, "--", "trainer", "train"])
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"written: {manifest}; start the job with `kubectl apply -f {manifest}`\n"
    )
    objects: list[Any] = [each for each in yaml.safe_load_all(manifest.read_text()) if each]
    (job,) = [each for each in objects if each["kind"] == "RayJob"]
    # Kubernetes allows lower-case letters, digits and hyphens in a name.
    assert job["metadata"]["name"].startswith("my-run-")
    assert "trainer train" in job["spec"]["entrypoint"]


def test_a_folder_is_uploaded_once(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices" / "a.png").write_bytes(b"a")
    words = ["upload", str(tmp_path / "slices"), str(tmp_path / "store")]
    outputs = [CliRunner().invoke(app, words).stdout for _ in range(2)]
    assert outputs == [f"uploaded {count} to {tmp_path}/store\n" for count in ("1 file", "0 files")]
    assert (tmp_path / "store" / "a.png").read_bytes() == b"a"


def test_a_run_without_jobs_has_nothing_to_stop(tmp_path: Path) -> None:
    path = tmp_path / "demo.toml"
    path.write_text(
        f'[storage]\nroot = "{tmp_path}"\n[cluster]\naddress = "http://127.0.0.1:{free_port()}"\n'
    )
    result = CliRunner().invoke(app, ["stop", str(path)])
    assert isinstance(result.exception, ClusterError)
    assert "run 'run' has no job in its storage" in str(result.exception)
