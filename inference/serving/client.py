"""The service as a command sees it: its address, whether it can be there, how it does."""

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
"""Hosts that stand for all addresses of a machine, and where it finds itself then."""

_A = TypeVar("_A", bound=BaseModel)


def service_url(settings: Serve) -> str:
    """Where a client on the service's machine finds it: http://127.0.0.1:8000."""
    host = WILDCARD_HOSTS.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def read_api_key(settings: Serve) -> str | None:
    """The key clients must send; None where none is asked for, ConfigError where it is not set."""
    return None if settings.api_key is None else read_secret("serve.api_key", settings.api_key)


@contextmanager
def reserve_address(settings: Serve) -> Iterator[None]:
    """Keep the service's address from other commands for the time of the block.

    All replicas of a user may listen at one address, and would of two services too.
    Raises ConfigError where another program has the address, or none can listen there.
    """
    _check_free(settings)
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            # A name that no file stands for, and that is gone with this process.
            claim.bind(f"\0segfleet-{settings.host}-{settings.port}")
        except OSError as error:
            raise ConfigError(
                f"another `python -m inference deploy` begins to listen at "
                f"{settings.host}:{settings.port}: change serve.port, or end it."
            ) from error
        yield


def _check_free(settings: Serve) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as door:
        # As the service's own server does, so that a port that was just left can be taken.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigError(
                f"the service cannot listen at {settings.host}:{settings.port} "
                f"({error.strerror or error}): change serve.host or serve.port."
            ) from error


def read_status(settings: Serve) -> ServiceStatus:
    """How the service does; ClusterError where it does not answer."""
    return _read(settings, "/v1/status", ServiceStatus)


def read_model(settings: Serve) -> ModelInfo:
    """What the service hosts; ClusterError where it does not answer."""
    return _read(settings, "/v1/model", ModelInfo)


def wait_for_signal() -> None:
    """Wait for Ctrl-C or a request to terminate.

    The handlers are set and not only left as they are, because a shell starts a command in the
    background with Ctrl-C ignored.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()


def _read(settings: Serve, path: str, kind: type[_A]) -> _A:
    place, key = service_url(settings), read_api_key(settings)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(place + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return kind.model_validate_json(answer.read())
    except HTTPError as error:
        raise ClusterError(f"the service at {place} refuses: {_said(error)}") from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ClusterError(
            f"no service answers at {place} ({reason}): start it with `python -m inference deploy`."
        ) from error
    except (ValidationError, HTTPException) as error:
        raise ClusterError(
            f"what answers at {place} is not this service: change serve.host or serve.port."
        ) from error


def _said(error: HTTPError) -> str:
    try:
        return ErrorResponse.model_validate_json(error.read()).error
    except ValidationError:
        return f"{error.code} {error.reason}."
