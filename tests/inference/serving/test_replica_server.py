"""Where a replica listens, and how its server ends."""

import asyncio
import socket
import threading
from typing import Any

import httpx
import pytest

from contract.config import Serve
from contract.errors import ClusterError, ConfigError
from inference.serving.client import reserve_address
from inference.serving.replica_server import (
    ReplicaServer,
    create_own_listener,
    create_shared_listener,
)
from tests.nodes import free_port


@pytest.mark.parametrize(
    ("host", "open_"), [("0.0.0.0", True), ("localhost", True), ("10.0.0.7", False)]
)
def test_no_replica_is_to_listen_at_an_address_of_another_node(host: str, open_: bool) -> None:
    listener = create_own_listener(Serve(host=host))
    assert (listener is not None) == open_
    if listener:
        listener.close()


def test_a_port_of_its_own_is_one_that_is_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = free_port()
        listener = create_own_listener(Serve(), (port, free))
        assert listener
        with listener:
            assert listener.getsockname() == ("127.0.0.1", free)
            with pytest.raises(ClusterError, match="no port is free on this node"):
                create_own_listener(Serve(), (port, free))


def test_replicas_share_an_address_and_none_else_may() -> None:
    settings = Serve(port=free_port())
    with (
        create_shared_listener(settings),
        create_shared_listener(settings),
        pytest.raises(ConfigError, match="cannot listen"),
        reserve_address(settings),
    ):
        pass


def test_of_two_services_that_start_one_has_the_address() -> None:
    settings = Serve(port=free_port())
    with reserve_address(settings):
        with (
            pytest.raises(ConfigError, match=r"another .* is starting to listen"),
            reserve_address(settings),
        ):
            pass
        with create_shared_listener(settings):
            pass
    with reserve_address(settings):
        pass


def test_what_was_taken_in_is_answered_when_it_closes() -> None:
    """A request under way is answered, its connection is not kept, and the port is free then."""
    started, go_on = threading.Event(), asyncio.Event()
    settings = Serve(port=free_port())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})

    async def serve() -> str:
        server = ReplicaServer(app, create_shared_listener(settings), settings)
        assert not server.is_closed
        asking = asyncio.create_task(asyncio.to_thread(httpx.get, server.url, timeout=60))
        await asyncio.to_thread(started.wait)
        closing = asyncio.create_task(server.close())
        while _listens(settings.port):
            await asyncio.sleep(0.01)
        assert not closing.done()
        go_on.set()
        await closing
        assert server.is_closed
        return (await asking).text

    assert asyncio.run(serve()) == "answered"


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
