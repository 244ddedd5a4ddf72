"""The client of the service: addresses, API keys, and the errors of other servers."""

import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from contract.config import Serve
from contract.errors import ClusterError, ConfigError
from contract.imaging.decode import decode_stack
from inference.serving.client import (
    create_service_client,
    read_api_key,
    reserve_address,
    service_url,
)
from inference.serving.replica_server import create_shared_listener
from tests.nodes import ROOT, free_port


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("gpu-1", "http://gpu-1:8000"),
    ],
)
def test_the_url_names_an_address_that_a_client_can_use(host: str, url: str) -> None:
    assert service_url(Serve(host=host)) == url


def test_the_api_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_api_key(Serve()) is None
    settings = Serve(api_key_env="SEGFLEET_TEST_KEY")
    monkeypatch.setenv("SEGFLEET_TEST_KEY", "secret")
    assert read_api_key(settings) == "secret"
    monkeypatch.delenv("SEGFLEET_TEST_KEY")
    with pytest.raises(ConfigError, match="SEGFLEET_TEST_KEY"):
        read_api_key(settings)


def test_an_address_that_is_in_use_cannot_be_reserved() -> None:
    settings = Serve(port=free_port())
    with (
        create_shared_listener(settings),
        pytest.raises(ConfigError, match="cannot listen"),
        reserve_address(settings),
    ):
        pass


def test_only_one_command_can_reserve_an_address() -> None:
    settings = Serve(port=free_port())
    with reserve_address(settings):
        with (
            pytest.raises(ConfigError, match=r"another .* is starting to listen"),
            reserve_address(settings),
        ):
            pass
        # The replicas of the service itself can listen.
        with create_shared_listener(settings):
            pass
    with reserve_address(settings):
        pass


def test_no_response_is_an_error_that_names_the_command() -> None:
    with pytest.raises(ClusterError, match="start it with `segfleet deploy`"):
        create_service_client(Serve(port=free_port())).status()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not this service"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "is not this service"),
        (b'HTTP/1.0 401 Unauthorized\r\n\r\n{"error": "No key."}', "rejects the request: No key"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "rejects the request: 404 Not Found"),
    ],
)
def test_responses_of_other_servers_are_errors(response: bytes, message: str) -> None:
    with (
        listening_server(response) as port,
        pytest.raises(ClusterError, match=message),
    ):
        create_service_client(Serve(port=port)).status()


def test_several_arrays_are_sent_as_a_stack() -> None:
    slices = [np.full((4, 5), level, np.uint8) for level in (1, 2, 3)]
    bodies: list[bytes] = []
    with (
        listening_server(b"HTTP/1.0 400 Bad Request\r\n\r\n", bodies) as port,
        pytest.raises(ClusterError, match="400 Bad Request"),
    ):
        create_service_client(Serve(port=port)).segment(slices)
    assert decode_stack(bodies[0], "the image", 3)[0, 0].tolist() == [1, 2, 3]


@contextmanager
def listening_server(response: bytes, bodies: list[bytes] | None = None) -> Iterator[int]:
    """A server that sends the same bytes on every connection; its port.

    bodies: the bodies of the requests are added to it.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            size = 0
            while line := self.rfile.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            if bodies is not None:
                bodies.append(self.rfile.read(size))
            self.wfile.write(response)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_background_command_ends_with_both_signals(number: int) -> None:
    """A shell starts a background command with Ctrl-C ignored."""
    script = (
        "import signal, threading; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from inference.serving.client import wait_for_signal\n"
        "threading.Timer(0.5, print, ['waiting'], {'flush': True}).start()\n"
        "wait_for_signal(); print('ended')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        os.kill(process.pid, number)
        assert process.stdout.read() == "ended\n"
        assert process.wait(30) == 0
