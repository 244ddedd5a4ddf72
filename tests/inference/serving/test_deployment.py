"""A running service follows the registry under load, and reports its status."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.config import Config
from contract.config.loader import to_toml
from contract.registry import Registry
from contract.storage import open_storage
from tests.inference.conftest import promote_damaged
from tests.nodes import ROOT, free_port, without_ray
from tests.processes import titled
from tests.waiting import HANG_TIMEOUT_S, wait_until

SEGMENT = "/v1/segment"
PNG = {"Content-Type": "image/png"}


class LoadGenerator:
    """Clients that send slices, one after the other, until the block ends."""

    def __init__(self, service: Any, image: bytes, clients: int) -> None:
        self.responses: Counter[tuple[int, str]] = Counter()
        """Number of responses by status and model."""
        self._service, self._image = service, image
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> "LoadGenerator":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with self._service.client() as client:
            while not self._stop.is_set():
                response = client.post(SEGMENT, content=self._image, headers=PNG)
                self.responses[
                    response.status_code, response.headers.get("segfleet-model", "")
                ] += 1

    def wait_for_responses(self, model: str, count: int) -> None:
        """Wait for this number of further responses of a model."""
        expected = self.responses[200, model] + count
        wait_until(
            lambda: self.responses[200, model] >= expected,
            lambda: self.responses,
            interval_s=0.05,
        )


def test_a_promotion_and_a_rollback_under_load_lose_no_request(
    service: Any, slice_png: bytes
) -> None:
    with LoadGenerator(service, slice_png, clients=4) as load:
        load.wait_for_responses("bright@1", 20)
        service.registry.promote("bright", 2, "production")
        load.wait_for_responses("bright@2", 20)
        service.registry.rollback("bright", "production")
        load.wait_for_responses("bright@1", 20)
    assert {status for status, _ in load.responses} == {200}


def test_a_promoted_bundle_that_cannot_be_served_is_a_load_error(
    service: Any, make_bundle: Any, slice_png: bytes
) -> None:
    promote_damaged(service.registry, make_bundle(0.7))
    with service.client() as client:

        def load_error() -> str | None:
            return client.get("/v1/status").json()["replicas"][0]["load_error"]

        assert "saved_model.pb" in wait_until(load_error)
        assert client.post(SEGMENT, content=slice_png, headers=PNG).status_code == 200
        result = service.run_command("service").stdout
        assert "saved_model.pb" in result
        service.registry.rollback("bright", "production")
        wait_until(lambda: not load_error())


def test_the_status_counts_requests(service: Any, slice_png: bytes) -> None:
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
    result = service.run_command("service")
    assert result.returncode == 0, result.stderr
    assert "bright@production = version 1, run bright-0.5, OpenVINO" in result.stdout
    assert "32 x 32 pixels, grey" in result.stdout
    assert f"{after['requests']}, of these rejected {after['rejected']}, failed 0" in result.stdout
    assert "p50" in result.stdout


def test_a_model_that_does_not_exist_is_rejected(service: Any) -> None:
    result = service.run_command("deploy", "serve.model=unknown@production")
    assert result.returncode == 1
    assert (
        "serve.model = 'unknown@production' cannot be served, because there is no model"
        in result.stderr
    )


@pytest.mark.parametrize("command", ["service", "shutdown"])
def test_a_missing_service_or_cluster_is_one_sentence(service: Any, command: str) -> None:
    override = "serve.port=9" if command == "service" else "cluster.address=127.0.0.1:9"
    result = service.run_command(command, override)
    assert result.returncode == 1
    assert result.stderr.startswith("error: no ")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def local_service(
    bright_bundle: Any, tmp_path: Path
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The URL of a service on a local cluster, and the process of its command."""
    root, port = str(tmp_path / "storage"), free_port()
    registry = Registry(open_storage(root))
    registry.register("bright", bright_bundle.url)
    registry.promote("bright", 1, "production")
    config = tmp_path / "local.toml"
    settings = {"storage": {"root": root}, "serve": {"model": "bright@production", "port": port}}
    config.write_text(to_toml(Config.model_validate(settings)))
    command = [sys.executable, "-m", "inference", "deploy", str(config)]
    with subprocess.Popen(
        command, cwd=ROOT, env=without_ray(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert f"served at http://127.0.0.1:{port}" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.terminate()


def test_on_a_local_cluster_the_replicas_are_the_service(
    local_service: tuple[str, "subprocess.Popen[str]"], slice_png: bytes
) -> None:
    url, process = local_service
    with httpx.Client(base_url=url, timeout=HANG_TIMEOUT_S) as client:
        response = client.post(SEGMENT, content=slice_png, headers=PNG)
        assert (response.status_code, response.headers["segfleet-model"]) == (200, "bright@1")
        assert [replica["url"] for replica in client.get("/v1/status").json()["replicas"]] == [url]
    assert not titled("ray::ProxyActor", process.pid)
    # A lost replica is replaced, and the new one listens on the same address.
    (replica,) = titled("ray::ServeReplica:segfleet:Replica", process.pid)
    os.kill(replica, signal.SIGKILL)
    assert wait_until(lambda: _request_status(url, slice_png)) == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(HANG_TIMEOUT_S) == 0


def _request_status(url: str, image: bytes) -> int | None:
    """The status of one request on a new connection; None if there is no response."""
    try:
        return httpx.post(url + SEGMENT, content=image, headers=PNG, timeout=60).status_code
    except httpx.TransportError:
        return None
