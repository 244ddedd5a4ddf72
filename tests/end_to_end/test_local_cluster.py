"""The cluster that a command starts for itself: what it cannot hold, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cluster.ray_internals import machine_memory_gb
from contract.config import Config
from contract.config.loader import to_toml
from tests.nodes import ROOT, without_ray
from tests.waiting import HANG_TIMEOUT_S, wait_until

# Memory that a local cluster with one training worker may use until Ray ends workers.
SPARE_GB = 2.0
PROGRAM = """
import grpc, logging, os, ray, signal, sys
from cluster import connection
from cluster.connection import check_reachable, ray_session
from contract.config import Cluster

@ray.remote
def read_worker():
    import contract
    return contract.__file__

def call_without_token(address):
    # The status of a request that does not send the token of the cluster.
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        try:
            call(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupt)
try:
    with ray_session(Cluster(cpus=1)) as connection:
        print(ray.get(read_worker.remote()))
        print(ray.get_runtime_context().gcs_address)
        print(ray._private.worker._global_node.temp_dir, flush=True)
        assert connection.is_local
        print(call_without_token(ray.get_runtime_context().gcs_address), flush=True)
        os.kill(os.getpid(), int(sys.argv[1]))
except KeyboardInterrupt:
    print("terminated")
"""


def run_program(folder: Path, signal_number: int) -> subprocess.CompletedProcess[str]:
    """Start a local cluster in a process that then sends itself a signal."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(signal_number))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
        check=False,
    )


def test_local_clusters_leave_nothing_behind(tmp_path: Path) -> None:
    """One is terminated; before that, one was killed, which the next start cleans up."""
    killed = run_program(tmp_path, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    abandoned = Path(killed.stdout.split()[2]).parent
    assert abandoned.exists()

    done = run_program(tmp_path, signal.SIGTERM)
    assert done.returncode == 0, done.stderr
    module, address, folder, status, end = done.stdout.split()
    # Ray listens on all interfaces, so the token alone guards a local cluster.
    assert status == "UNAUTHENTICATED"
    assert end == "terminated"
    assert module == str(ROOT / "contract/__init__.py")
    assert done.stderr == ""
    host, port = address.split(":")
    with socket.socket() as sock:
        assert sock.connect_ex((host, int(port))) != 0
    for left in (Path(folder).parent, abandoned):
        assert not left.exists()
        assert not any(f"{left}/".encode() in line for line in command_lines())


def command_lines() -> list[bytes]:
    """The command lines of all processes."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(file.read_bytes())
    return lines


def test_more_workers_than_a_local_cluster_holds_are_rejected_at_once(tmp_path: Path) -> None:
    output = train(tmp_path, {"cluster.cpus": 1})
    assert output.returncode == 1
    assert "train.num_workers requests 2 training workers" in output.stderr
    assert "the cluster can hold 1: set train.num_workers to 1" in output.stderr
    assert not (tmp_path / "runs").exists()


def test_no_cluster_starts_on_a_machine_whose_memory_is_used_up(tmp_path: Path) -> None:
    output = train(tmp_path, {"cluster.cpus": 2}, {"RAY_memory_usage_threshold": "0.001"})
    assert output.returncode == 1
    error = output.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"error: [\d.]+ of the [\d.]+ GB of memory of this machine are used, and Ray ends workers "
        r"above 0%: end other programs, or raise RAY_memory_usage_threshold\.",
        error,
    )


def test_a_worker_that_fills_the_memory_ends_the_command_with_one_sentence(tmp_path: Path) -> None:
    """The batch needs 5 GB, and Ray ends the worker long before."""
    used, total = machine_memory_gb()
    large = {
        "cluster.cpus": 1,
        "data.phantom.size": 256,
        "network.image_size": 256,
        "network.num_layers": 2,
        "network.base_filters": 64,
        "train.num_workers": 1,
        "train.batch_size": 16,
        "train.max_failures": 0,
        "cluster.start_timeout_s": 60,
    }
    threshold = {"RAY_memory_usage_threshold": f"{(used + SPARE_GB) / total:.4f}"}
    output = train(tmp_path, large, threshold)
    assert output.returncode == 1
    error = output.stderr.splitlines()[-1]
    # Other programs of this machine may fill its memory before the worker does.
    assert error.startswith(("error: a training worker was ended because", "error: the 1 training"))
    assert re.search(r"[\d.]+ of (the )?[\d.]+ GB (of memory of this machine are|were) used", error)
    if "did not start" not in error:
        assert "the largest worker had" in error
        assert "lower train.batch_size, network.image_size or network.base_filters" in error
    for text in ("Traceback", "Selected to kill", "OutOfMemoryError", "RAY_memory", "raylet"):
        assert text not in output.stderr


def test_an_interrupted_training_exits_with_130(tmp_path: Path) -> None:
    """Interrupted while its workers start, when the driver waits for them in several threads."""
    command = train_command(tmp_path, {"cluster.cpus": 1, "train.num_workers": 1})
    process = subprocess.Popen(command, env=without_ray(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    own = f"segfleet-train-{process.pid}-*/*"
    for line in process.stderr:
        lines.append(line)
        if "starting 1 worker" in line:
            # Ray Train's controller writes there when it starts; a thread waits for it by then.
            wait_until(lambda: list(Path(tempfile.gettempdir()).glob(own)))
            process.send_signal(signal.SIGINT)
    assert process.wait(HANG_TIMEOUT_S) == 130, lines
    assert lines[-1] == "interrupted before the first epoch of run big was finished.\n"
    assert "ending the training workers\n" in lines
    assert not any("Traceback" in line or "Fatal" in line for line in lines)
    # The same command starts it at once: the lease is released.
    assert list((tmp_path / "leases").rglob("*.json")) == []


def train(
    folder: Path, values: Mapping[str, object], variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`trainer train` with few slices, and with these settings and environment variables."""
    return subprocess.run(
        train_command(folder, values),
        env={**without_ray(), **(variables or {})},
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
        check=False,
    )


def train_command(folder: Path, values: Mapping[str, object]) -> list[str]:
    """The command `trainer train` with few slices and these settings, written to the folder."""
    path = folder / "run.toml"
    small = {"data.phantom.slices": 16, "data.phantom.size": 64, "data.phantom.train_patients": 2}
    config = Config().with_values(
        {"storage.root": str(folder), "run.name": "big", **small, **values}
    )
    path.write_text(to_toml(config), encoding="utf-8")
    return [sys.executable, "-m", "trainer", "train", str(path)]
