"""Client of the service for commands: its address, its model and its status."""

import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import TypeVar
from urllib.error import HTTPError, URLError

from pydantic import BaseModel, ValidationError

from contract.config import Serve
from contract.config.loader import read_secret
from contract.errors import ClusterError, ConfigError
from inference.serving.schemas import ErrorResponse, ModelInfo, ServiceStatus

_TIMEOUT_S = 10.0
WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that stand for all addresses of a machine, and how the machine reaches itself then."""

_Response = TypeVar("_Response", bound=BaseModel)


def service_url(serve: Serve) -> str:
    """The URL of the service for a client on its machine: http://127.0.0.1:8000."""
    host = WILDCARD_HOSTS.get(serve.host, serve.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{serve.port}"


def read_api_key(serve: Serve) -> str | None:
    """The key that clients must send; None if none is required, ConfigError if it is not set."""
    return None if serve.api_key is None else read_secret("serve.api_key", serve.api_key)


@contextmanager
def reserve_address(serve: Serve) -> Iterator[None]:
    """Keep the address of the service from other commands for the duration of the block.

    All replicas of a user may listen on one address, and those of two services could too. Raises
    ConfigError if another program uses the address, or listening on it is not possible.
    """
    _check_port_is_free(serve)
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            # A name without a file, which disappears with this process.
            lock.bind(f"\0segfleet-{serve.host}-{serve.port}")
        except OSError as error:
            raise ConfigError(
                f"another `python -m inference deploy` is starting to listen on "
                f"{serve.host}:{serve.port}: change serve.port, or stop it."
            ) from error
        yield


def _check_port_is_free(serve: Serve) -> None:
    family = socket.AF_INET6 if ":" in serve.host else socket.AF_INET
    with socket.socket(family) as listener:
        # As the server of the service does, so that a port that was just released can be used.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((serve.host, serve.port))
        except OSError as error:
            raise ConfigError(
                f"the service cannot listen on {serve.host}:{serve.port} "
                f"({error.strerror or error}): change serve.host or serve.port."
            ) from error


def read_status(serve: Serve) -> ServiceStatus:
    """The status of the service; ClusterError if it does not respond."""
    return _get(serve, "/v1/status", ServiceStatus)


def read_model(serve: Serve) -> ModelInfo:
    """The model of the service; ClusterError if it does not respond."""
    return _get(serve, "/v1/model", ModelInfo)


def wait_for_signal() -> None:
    """Wait for Ctrl-C or SIGTERM.

    The handlers are set explicitly, because a shell starts a background command with Ctrl-C
    ignored.
    """
    received = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: received.set())
    received.wait()


def _get(serve: Serve, path: str, response_type: type[_Response]) -> _Response:
    url, key = service_url(serve), read_api_key(serve)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            return response_type.model_validate_json(response.read())
    except HTTPError as error:
        raise ClusterError(
            f"the service at {url} rejects the request: {_error_detail(error)}"
        ) from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ClusterError(
            f"no service responds at {url} ({reason}): start it with `python -m inference deploy`."
        ) from error
    except (ValidationError, HTTPException) as error:
        raise ClusterError(
            f"what responds at {url} is not this service: change serve.host or serve.port."
        ) from error


def _error_detail(error: HTTPError) -> str:
    try:
        return ErrorResponse.model_validate_json(error.read()).error
    except ValidationError:
        return f"{error.code} {error.reason}."
