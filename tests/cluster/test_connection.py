"""Who is connected stays so; a bad address is one sentence, soon; a termination is answered."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from cluster import connection
from cluster.connection import (
    cache_folder,
    check_reachable,
    jobs_address,
    process_temp_folder,
    ray_session,
)
from contract.config import Cluster
from contract.errors import ClusterError

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.usefixtures("ray_cluster")
def test_a_connected_process_stays_connected_to_the_same_cluster() -> None:
    before = ray.get_runtime_context().gcs_address
    with ray_session(Cluster(address="127.0.0.1:1")):
        assert ray.get_runtime_context().gcs_address == before
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_cluster")
def test_workers_import_our_packages_and_keras_2() -> None:
    @ray.remote
    def read_worker() -> tuple[str, str | None]:
        import contract

        return contract.__file__, os.environ.get("TF_USE_LEGACY_KERAS")

    assert ray.get(read_worker.remote()) == (str(ROOT / "contract/__init__.py"), "1")


KILLED_IN_ITS_FOLDER = """
import os, signal, tempfile
from cluster.connection import process_temp_folder

with process_temp_folder():
    tempfile.mkstemp(prefix="__autograph_generated_file")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("ray_cluster")
def test_workers_of_a_local_cluster_have_the_priority_of_this_process() -> None:
    @ray.remote
    def niceness() -> int:
        return os.nice(0)

    assert ray.get(niceness.remote()) == os.nice(0)


def test_temporary_files_of_a_training_process_are_deleted_even_if_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(connection.CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED_IN_ITS_FOLDER]
    killed = subprocess.run(command, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*/__autograph_generated_file*"))) == 1
    with process_temp_folder():
        own = Path(tempfile.mkstemp()[1])
        assert list(tmp_path.iterdir()) == [own.parent]
        # Decoded slices are shared with other processes.
        assert cache_folder() == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert tempfile.gettempdir() == str(tmp_path)


ADDRESSES = [
    ("http://127.0.0.1:8265", "Jobs API"),
    ("head", "must have the form host:port"),
    ("head:port", "must have the form host:port"),
]


@pytest.mark.parametrize(("address", "reason"), ADDRESSES)
def test_a_wrong_address_is_explained(address: str, reason: str) -> None:
    with pytest.raises(ClusterError, match=reason):
        check_reachable(address)


def test_an_unreachable_cluster_is_given_up() -> None:
    with pytest.raises(ClusterError, match="no Ray cluster responds"):
        check_reachable(f"ray://127.0.0.1:{free_port()}")


def test_a_port_of_something_else_is_reported_from_a_cluster(
    s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 1.0)
    with pytest.raises(ClusterError, match="is not a Ray cluster"):
        check_reachable(s3_server.removeprefix("http://"))


def test_a_cluster_that_is_looked_for_and_not_found_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_none(address: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    # Ray itself would find the cluster of the other tests.
    monkeypatch.setattr(connection, "dashboard_address", find_none)
    with pytest.raises(
        ClusterError, match="Jobs API of the Ray cluster at auto: Could not find any"
    ):
        jobs_address(Cluster(address="auto"))


def test_a_termination_that_ray_has_answered_is_answered_by_our_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[int] = []

    def interrupted_start(**_: object) -> None:
        # As ray.init leaves it where SIGTERM comes meanwhile.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit(1)

    def own(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, own)
    try:
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", interrupted_start)
        monkeypatch.setattr(ray, "shutdown", lambda **_: None)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with pytest.raises(KeyboardInterrupt), ray_session(Cluster()):
            pass
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
