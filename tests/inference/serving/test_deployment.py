"""A running service follows the registry under load, and tells how it does."""

import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.config import Config, Serve
from contract.config.loader import to_toml
from contract.errors import ClusterError, RegistryError
from contract.registry import Registry
from contract.storage import open_storage
from inference.__main__ import deploy, models
from inference.serving.client import read_status
from inference.serving.deployment import ReplicaSpec
from inference.serving.service import start_service
from tests.inference.conftest import TIMEOUT_S
from tests.nodes import ROOT, free_port, without_ray
from tests.processes import titled

SEGMENT = "/v1/segment"
PNG = {"Content-Type": "image/png"}


class Load:
    """Clients that send slices one after the other until they are told to stop."""

    def __init__(self, service: Any, image: bytes, clients: int) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        """How often each status and model came back."""
        self._service, self._image = service, image
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with self._service.client() as client:
            while not self._ended.is_set():
                answer = client.post(SEGMENT, content=self._image, headers=PNG)
                self.answers[answer.status_code, answer.headers.get("segfleet-model", "")] += 1

    def wait_for(self, model: str, more: int, timeout_s: float = 30) -> None:
        """Wait until so many more answers have come from a model."""
        expected, deadline = self.answers[200, model] + more, time.monotonic() + timeout_s
        while self.answers[200, model] < expected:
            assert time.monotonic() < deadline, self.answers
            time.sleep(0.05)


def test_a_promotion_and_a_roll_back_reach_a_loaded_service(service: Any, slice_png: bytes) -> None:
    with Load(service, slice_png, clients=4) as load:
        load.wait_for("bright@1", 20)
        service.registry.promote("bright", 2, "production")
        load.wait_for("bright@2", 20)
        service.registry.rollback("bright", "production")
        load.wait_for("bright@1", 20)
    assert {status for status, _ in load.answers} == {200}


def test_a_promotion_that_cannot_be_hosted_leaves_the_service_as_it_is(
    service: Any, make_bundle: Any, slice_png: bytes
) -> None:
    broken = make_bundle(0.7)
    number = service.registry.register("bright", broken.url).version
    (broken.path / "saved_model/saved_model.pb").write_bytes(b"gone")
    service.registry.promote("bright", number, "production")
    with service.client() as client:
        deadline = time.monotonic() + 30
        while not (load_error := client.get("/v1/status").json()["replicas"][0]["load_error"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "saved_model.pb" in load_error
        assert client.post(SEGMENT, content=slice_png, headers=PNG).status_code == 200
        result = service.run("status").stdout
        assert "saved_model.pb" in result
        service.registry.rollback("bright", "production")
        while client.get("/v1/status").json()["replicas"][0]["load_error"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_status_counts(service: Any, slice_png: bytes) -> None:
    with service.client() as client:
        before = client.get("/v1/status").json()
        for _ in range(3):
            client.post(SEGMENT, content=slice_png, headers=PNG)
        client.post(SEGMENT, content=b"nonsense", headers=PNG)
        after = client.get("/v1/status").json()
    assert after["requests"] - before["requests"] == 4
    assert after["rejected"] - before["rejected"] == 1
    assert after["errors"] == 0
    assert 0 < after["latency_s"]["p50"] <= after["latency_s"]["p99"] < 60
    result = service.run("status")
    assert result.returncode == 0, result.stderr
    assert "bright@production = version 1, run bright-0.5, OpenVINO" in result.stdout
    assert f"{after['requests']}, of these rejected {after['rejected']}, failed 0" in result.stdout
    assert "p50" in result.stdout


def test_a_reference_that_does_not_exist_is_rejected(service: Any) -> None:
    result = service.run("deploy", "serve.model=unknown@production")
    assert result.returncode == 1
    assert "serve.model = 'unknown@production' cannot be served: there is no model" in result.stderr


def test_a_model_that_was_trained_and_never_registered_is_reported_how_to_become_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, root = tmp_path / "demo.toml", tmp_path / "kept"
    config.write_text(f'[storage]\nroot = "{root}"\n')
    with pytest.raises(RegistryError) as caught:
        deploy(config)
    result = str(caught.value)
    assert result.startswith("serve.model = 'demo@production' cannot be served: there is no model")
    for verb in (f"register demo {root}/runs/RUN/bundle", "promote demo 1 production"):
        assert f"`python -m inference {verb} --storage {root}`" in result
    models(str(root))
    listed = capsys.readouterr().out
    assert listed.startswith(f"no model is registered in {root}/registry: register a bundle by `")
    assert listed.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"), [("port", 9), ("request_timeout_s", 9.0), ("request_timeout_s", 0.1)]
)
def test_serve_that_listens_in_another_way_is_rejected(
    service: Any, name: str, value: float
) -> None:
    port = int(service.url.rpartition(":")[2])
    other = Serve.model_validate({"model": "bright@production", "port": port, name: value})
    known = {"port": port, "request_timeout_s": TIMEOUT_S}[name]
    message = rf"already runs with serve\.{name} = {known}, not {value}:"
    with pytest.raises(ClusterError, match=message):
        start_service(ReplicaSpec(other, "nowhere", key_digest=None, private=False), timeout_s=1.0)


def test_a_service_that_cannot_be_deployed_leaves_nothing_behind(attempts: Any) -> None:
    assert not attempts.nothing
    assert "did not start in time: 1 replicas of 64 CPUs" in attempts.first
    assert "shutdown" not in attempts.first
    assert not attempts.left
    assert "did not start in time" in attempts.second
    assert attempts.second.endswith("or end it with `python -m inference shutdown`.")


def test_a_port_that_speaks_no_http_is_reported() -> None:
    class Greeting(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Greeting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(ClusterError, match="is not this service"):
                read_status(Serve(port=server.server_address[1]))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("command", ["status", "shutdown"])
def test_where_nothing_runs_one_sentence_says_so(service: Any, command: str) -> None:
    override = "serve.port=9" if command == "status" else "cluster.address=127.0.0.1:9"
    result = service.run(command, override)
    assert result.returncode == 1
    assert result.stderr.startswith("error: no ")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def alone(bright: Any, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address of a service on a private cluster of its own, and the command that runs it."""
    store, port = str(tmp_path / "kept"), free_port()
    registry = Registry(open_storage(store))
    registry.register("bright", bright.url)
    registry.promote("bright", 1, "production")
    config = tmp_path / "alone.toml"
    settings = {"storage": {"root": store}, "serve": {"model": "bright@production", "port": port}}
    config.write_text(to_toml(Config.model_validate(settings)))
    words = [sys.executable, "-m", "inference", "deploy", str(config)]
    with subprocess.Popen(
        words, cwd=ROOT, env=without_ray(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert f"served at http://127.0.0.1:{port}" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.terminate()


def test_on_a_private_cluster_the_replica_itself_is_the_service(
    alone: tuple[str, "subprocess.Popen[str]"], slice_png: bytes
) -> None:
    url, process = alone
    with httpx.Client(base_url=url, timeout=60) as client:
        answer = client.post(SEGMENT, content=slice_png, headers=PNG)
        assert (answer.status_code, answer.headers["segfleet-model"]) == (200, "bright@1")
        assert [replica["url"] for replica in client.get("/v1/status").json()["replicas"]] == [url]
    assert not titled("ray::ProxyActor", process.pid)
    # A replica that is lost is replaced, and its successor listens at the same address.
    (replica,) = titled("ray::ServeReplica:segfleet:Replica", process.pid)
    os.kill(replica, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not (status := _asked(url, slice_png)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert status == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def _asked(url: str, image: bytes) -> int | None:
    """The status of one request on a connection of its own; None where no one answers."""
    try:
        return httpx.post(url + SEGMENT, content=image, headers=PNG, timeout=60).status_code
    except httpx.TransportError:
        return None
