"""A replica's own HTTP server: a request need not pass through Ray Serve's proxy.

On a private cluster these servers are the service: all replicas listen at its address, and the
kernel hands each new connection to one of them. On any other cluster each replica has a port of
its own, beside the proxy that listens at the service's address.
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
OWN_PORTS = range(30000, 31000)
"""Where a replica looks for a port of its own; Ray's own workers keep below or above."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 2048
_TAKEN = (errno.EADDRINUSE, errno.EACCES)


@final
class ReplicaServer:
    """An HTTP server on the event loop it is made on, until it is closed."""

    def __init__(self, app: ASGIApp, listener: socket.socket, settings: Serve) -> None:
        """listener: listens already. settings: of the service, whose port may be another."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        here = ray.util.get_node_ip_address() if settings.host in WILDCARD_HOSTS else settings.host
        place = {"host": here, "port": listener.getsockname()[1]}
        self.address = service_url(settings.model_copy(update=place))
        """Where it answers, as other machines of the cluster see it: http://127.0.0.1:30000."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))

    @property
    def closed(self) -> bool:
        """Whether it no longer answers."""
        return self._serving.done()

    async def close(self) -> None:
        """Take no more connections, and answer what was taken in."""
        self._server.should_exit = True
        await self._serving


def shared_listener(settings: Serve) -> socket.socket:
    """Listens at the service's address, as the other replicas of this machine are too."""
    return _bound(settings.host, settings.port, shared=True)


def own_listener(settings: Serve, ports: Iterable[int] = OWN_PORTS) -> socket.socket | None:
    """Listens at the first free one of the ports; None where a replica is not to have its own.

    That is where the service listens at the address of one node: a replica elsewhere could not.
    Raises ClusterError where no port is free.
    """
    if settings.host not in (*_LOOPBACK, *WILDCARD_HOSTS):
        return None
    for port in ports:
        try:
            return _bound(settings.host, port, shared=False)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
    raise ClusterError(f"no port is free on this node for a replica: all of {ports} are taken.")


def _bound(host: str, port: int, shared: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        # Two may be bound to one port, but not listen there.
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
