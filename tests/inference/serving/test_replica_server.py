"""Where a replica listens, and how its server is closed."""

import asyncio
import socket
import threading
from typing import Any

import httpx
import pytest

from contract.config import Serve
from contract.errors import ClusterError
from inference.serving.replica_server import (
    ReplicaServer,
    create_own_listener,
    create_shared_listener,
)
from tests.nodes import free_port
from tests.waiting import HANG_TIMEOUT_S


@pytest.mark.parametrize(
    ("host", "has_listener"), [("0.0.0.0", True), ("localhost", True), ("10.0.0.7", False)]
)
def test_a_replica_does_not_listen_on_the_address_of_another_node(
    host: str, has_listener: bool
) -> None:
    listener = create_own_listener(Serve(host=host))
    assert (listener is not None) == has_listener
    if listener:
        listener.close()


def test_a_replica_listens_on_the_first_free_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        used_port, port = other.getsockname()[1], free_port()
        listener = create_own_listener(Serve(), (used_port, port))
        assert listener
        with listener:
            assert listener.getsockname() == ("127.0.0.1", port)
            with pytest.raises(ClusterError, match="no port is free on this node"):
                create_own_listener(Serve(), (used_port, port))


def test_replicas_share_the_address_of_the_service() -> None:
    settings = Serve(port=free_port())
    with create_shared_listener(settings) as first, create_shared_listener(settings) as second:
        assert first.getsockname() == second.getsockname() == ("127.0.0.1", settings.port)


def test_requests_in_flight_are_finished_before_the_server_is_closed() -> None:
    """The connection of the request is not kept alive, and the port is free afterwards."""
    started, may_respond = threading.Event(), asyncio.Event()
    settings = Serve(port=free_port())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await may_respond.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"finished"})

    async def serve() -> str:
        server = ReplicaServer(app, create_shared_listener(settings), settings)
        assert not server.is_closed
        request = asyncio.create_task(
            asyncio.to_thread(httpx.get, server.url, timeout=HANG_TIMEOUT_S)
        )
        await asyncio.to_thread(started.wait)
        closing = asyncio.create_task(server.close())
        while _is_listening(settings.port):
            await asyncio.sleep(0.01)
        assert not closing.done()
        may_respond.set()
        await closing
        assert server.is_closed
        return (await request).text

    assert asyncio.run(serve()) == "finished"


def _is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
