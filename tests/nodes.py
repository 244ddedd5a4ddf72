"""Ray nodes of a test's own behind a token, and a user's terminal that reaches them."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import HANG_TIMEOUT_S, wait_until

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass(frozen=True)
class Head:
    """A running head node, and what a client of it needs."""

    jobs: str
    gcs: str
    token: str
    process: "subprocess.Popen[bytes]"

    def client(self) -> dict[str, str]:
        """The environment of a user's terminal."""
        return {**without_ray(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def run(
        self,
        *words: str,
        folder: Path = ROOT,
        variables: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """A command of cluster as a user types it in a folder."""
        return subprocess.run(
            [sys.executable, "-m", "cluster", *words],
            cwd=folder,
            env={**self.client(), "PYTHONPATH": str(ROOT), **(variables or {})},
            capture_output=True,
            text=True,
            timeout=HANG_TIMEOUT_S,
            check=False,
        )

    def submit_by_hand(
        self, folder: Path, *command: str, variables: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """`ray job submit --working-dir FOLDER -- python …`, without segfleet's own `submit`.

        variables: the environment variables of the job.
        """
        runtime_env = json.dumps({"env_vars": dict(variables or {})})
        options = ["--address", self.jobs, "--working-dir", ".", "--runtime-env-json", runtime_env]
        return subprocess.run(
            [RAY, "job", "submit", *options, "--", sys.executable, *command],
            cwd=folder,
            env=self.client(),
            capture_output=True,
            text=True,
            timeout=HANG_TIMEOUT_S,
            check=False,
        )

    def stop(self) -> None:
        """End the head at once, as a machine that is switched off does."""
        kill_node(self.process)


@contextmanager
def head_node(cpus: int) -> Iterator[Head]:
    """A head with token authentication, which reaches the S3 server of this environment."""
    folder = Path(tempfile.mkdtemp(prefix="sfhead-", dir="/tmp"))
    port, jobs, token = free_port(), free_port(), secrets.token_hex(32)
    options = [
        "--head",
        f"--port={port}",
        f"--dashboard-port={jobs}",
        f"--ray-client-server-port={free_port()}",
        f"--temp-dir={folder}",
    ]
    process = _started(options, cpus, token, folder / "head.log")
    running = Head(f"http://127.0.0.1:{jobs}", f"127.0.0.1:{port}", token, process)
    try:
        _wait_for(jobs, process)
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def worker_node(head: Head, cpus: int, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """One more node on this machine, which joins a head; its log lies in the folder.

    It has a temporary directory of its own, as a machine of its own has: each node of Ray unpacks
    the working directory of a job, also over one that another node's workers import from.
    """
    log, temporary = folder / f"node-{free_port()}.log", tempfile.mkdtemp("", "sfnode-", "/tmp")
    options = [f"--address={head.gcs}", f"--temp-dir={temporary}"]
    process = _started(options, cpus, head.token, log)
    try:
        yield process
    finally:
        kill_node(process)
        shutil.rmtree(temporary, ignore_errors=True)


def _started(options: list[str], cpus: int, token: str, log: Path) -> "subprocess.Popen[bytes]":
    command = [
        *(RAY, "start", "--block", "--disable-usage-stats"),
        *("--dashboard-agent-listen-port=0", f"--num-cpus={cpus}"),
        f"--object-store-memory={2**28}",
        *options,
    ]
    variables = {**without_ray(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    # Ray is often started from a virtual environment that is not on PATH.
    variables["PATH"] = "/usr/bin:/bin"
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill_node(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL a node's Ray: what a machine that is switched off looks like to the others.

    Its workers end when they find their raylet gone. Ended politely, Ray waits half a minute for
    the replicas of a service.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


def without_ray() -> dict[str, str]:
    """This process's environment without what it knows of other clusters."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until something listens on a port."""

    def is_listening() -> bool:
        assert process.poll() is None, "the head did not start"
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    wait_until(is_listening, "the head did not start", interval_s=0.2)
