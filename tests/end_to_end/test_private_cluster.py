"""The cluster that a command starts for itself: what it cannot hold, and how it ends."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from contract.config import Config
from contract.config.loader import to_toml
from tests.nodes import ROOT, without_ray

PROGRAM = """
import logging, os, ray, signal
from cluster import connection
from cluster.connection import check_reachable, ray_session
from contract.config import Cluster

@ray.remote
def read_worker():
    import contract
    return contract.__file__

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupt)
try:
    with ray_session(Cluster(cpus=1)) as connection:
        print(ray.get(read_worker.remote()))
        print(ray.get_runtime_context().gcs_address)
        print(ray._private.worker._global_node.temp_dir)
        assert connection.private
        os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("terminated")
"""


def test_a_private_cluster_that_is_terminated_is_quiet_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    module, address, folder, end = done.stdout.split()
    assert end == "terminated"
    assert module == str(ROOT / "contract/__init__.py")
    assert done.stderr == ""
    assert not Path(folder).exists()
    host, port = address.split(":")
    with socket.socket() as sock:
        assert sock.connect_ex((host, int(port))) != 0


def test_more_workers_than_a_private_cluster_holds_are_rejected_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    small = {"data.phantom.slices": 4, "data.phantom.size": 64, "cluster.cpus": 1}
    config = Config().with_values({"storage.root": str(tmp_path), "run.name": "big", **small})
    path.write_text(to_toml(config), encoding="utf-8")
    output = subprocess.run(
        [sys.executable, "-m", "trainer", "train", str(path)],
        env=without_ray(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert output.returncode == 1
    assert "train.num_workers requests 2 training workers" in output.stderr
    assert "the cluster can hold 1: set train.num_workers to 1" in output.stderr
    assert not (tmp_path / "runs").exists()
