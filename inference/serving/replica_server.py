"""A replica's own HTTP server: requests need not pass through Ray Serve's proxy.

On a local cluster these servers are the service: all replicas listen on its address, and the
kernel assigns each new connection to one of them. On any other cluster each replica has a port of
its own, in addition to the proxy that listens on the address of the service.
"""

import asyncio
import errno
import socket
from collections.abc import Iterable
from typing import final

import ray
import uvicorn
from starlette.types import ASGIApp

from contract.config import Serve
from contract.errors import ClusterError
from inference.serving.client import WILDCARD_HOSTS, service_url

KEEP_ALIVE_S = 30
REPLICA_PORTS = range(30000, 31000)
"""Where a replica looks for a port of its own; the ports of Ray's workers are below or above."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 2048
_PORT_TAKEN = (errno.EADDRINUSE, errno.EACCES)


@final
class ReplicaServer:
    """An HTTP server on the running event loop, until it is closed."""

    def __init__(self, app: ASGIApp, listener: socket.socket, serve: Serve) -> None:
        """listener: a listening socket; serve: the settings, whose port may differ from its own."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        host = ray.util.get_node_ip_address() if serve.host in WILDCARD_HOSTS else serve.host
        update = {"host": host, "port": listener.getsockname()[1]}
        self.url = service_url(serve.model_copy(update=update))
        """Its URL as seen from other machines of the cluster: http://127.0.0.1:30000."""
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))

    @property
    def is_closed(self) -> bool:
        """Whether it no longer accepts requests."""
        return self._task.done()

    async def close(self) -> None:
        """Accept no more connections, and finish the requests in flight."""
        self._server.should_exit = True
        await self._task


def create_shared_listener(serve: Serve) -> socket.socket:
    """Listen on the address of the service, together with the other replicas of this machine."""
    return _listen(serve.host, serve.port, shared=True)


def create_own_listener(serve: Serve, ports: Iterable[int] = REPLICA_PORTS) -> socket.socket | None:
    """Listen on the first free port; None if a replica must not have a port of its own.

    That is the case if the service listens on the address of one node: a replica on another node
    could not. Raises ClusterError if no port is free.
    """
    if serve.host not in (*_LOOPBACK, *WILDCARD_HOSTS):
        return None
    for port in ports:
        try:
            return _listen(serve.host, port, shared=False)
        except OSError as error:
            if error.errno not in _PORT_TAKEN:
                raise
    raise ClusterError(f"no port is free on this node for a replica: all of {ports} are taken.")


def _listen(host: str, port: int, shared: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        # Two sockets may be bound to one port, but not listen on it.
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
