"""Client of the service: its address, its model, its status, and masks of slices."""

import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.error import HTTPError, URLError

import numpy as np
from pydantic import BaseModel, ValidationError

from contract.config import Serve
from contract.config.loader import read_secret
from contract.errors import ClusterError, ConfigError, DataError
from inference.serving.schemas import (
    ErrorResponse,
    ModelInfo,
    SegmentResponse,
    ServiceStatus,
    decode_run_lengths,
)

_TIMEOUT_S = 10.0
WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that stand for all addresses of a machine, and how the machine reaches itself then."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

Image = np.ndarray | Sequence[np.ndarray] | bytes | str | Path
"""A slice as an array or as an image file, or a slice with its neighbours as arrays."""

_Response = TypeVar("_Response", bound=BaseModel)


@dataclass(frozen=True)
class ServiceSegmentation:
    """The mask of a slice from the service."""

    mask: np.ndarray
    """uint8 [H, W] of class indices: 0 is the background, 1 the first of response.classes."""
    response: SegmentResponse
    """Model and version; of each class its area in pixels and its bounding box."""

    @property
    def area(self) -> int:
        """Foreground of all classes in pixels."""
        return sum(each.area for each in self.response.classes)


class ServiceClient:
    """Requests to a running service; made by inference.connect or create_service_client."""

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = _TIMEOUT_S) -> None:
        """As for inference.connect."""
        self.url = url.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._timeout_s = timeout_s

    def segment(self, image: Image) -> ServiceSegmentation:
        """The mask of one slice.

        Args:
            image: An array [H, W] or [H, W, C] with C = 1 (grey) or 3 (RGB), uint8, uint16 or
                int16; several arrays [H, W], which follow each other, for a model with neighbours
                (the lowest slice first); the content of an image file; or its path.

        Returns:
            The mask with the size of the slice, and what the service says about it.

        Raises:
            DataError: The array is not such a slice, or the file cannot be read.
            ClusterError: The service does not respond, or rejects the request.
        """
        headers = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
        response = self._request("/v1/segment", SegmentResponse, _encode(image), headers)
        mask = np.zeros((response.height, response.width), np.uint8)
        for index, each in enumerate(response.classes, start=1):
            mask[decode_run_lengths(each.mask) != 0] = index
        return ServiceSegmentation(mask, response)

    def status(self) -> ServiceStatus:
        """The status of the service; ClusterError if it does not respond."""
        return self._request("/v1/status", ServiceStatus)

    def model(self) -> ModelInfo:
        """The model that is served; ClusterError if the service does not respond."""
        return self._request("/v1/model", ModelInfo)

    def _request(
        self,
        path: str,
        response_type: type[_Response],
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> _Response:
        request = urllib.request.Request(self.url + path, body, {**self._headers, **headers})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                return response_type.model_validate_json(response.read())
        except HTTPError as error:
            raise ClusterError(
                f"the service at {self.url} rejects the request: {_error_detail(error)}"
            ) from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ClusterError(
                f"no service responds at {self.url} ({reason}): start it with `segfleet deploy`."
            ) from error
        except (ValidationError, HTTPException) as error:
            raise ClusterError(
                f"what responds at {self.url} is not this service: change serve.host or serve.port."
            ) from error


def create_service_client(serve: Serve) -> ServiceClient:
    """The client of the service of these settings; ConfigError if its key is not set."""
    return ServiceClient(service_url(serve), read_api_key(serve))


def _encode(image: Image) -> bytes:
    """The content of an image file."""
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str | Path):
        # Imported here, because a light client has no OpenCV.
        from contract.imaging.encode import encode_image, encode_stack

        return encode_image(image) if isinstance(image, np.ndarray) else encode_stack(image)
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the slice {image} ({error.strerror}).") from error


def service_url(serve: Serve) -> str:
    """The URL of the service for a client on its machine: http://127.0.0.1:8000."""
    host = WILDCARD_HOSTS.get(serve.host, serve.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{serve.port}"


def read_api_key(serve: Serve) -> str | None:
    """The key that clients must send; None if none is required, ConfigError if it is not set."""
    return (
        None if serve.api_key_env is None else read_secret("serve.api_key_env", serve.api_key_env)
    )


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
                f"another `segfleet deploy` is starting to listen on "
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


def wait_for_signal() -> None:
    """Wait for Ctrl-C or SIGTERM.

    The handlers are set explicitly, because a shell starts a background command with Ctrl-C
    ignored.
    """
    received = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: received.set())
    received.wait()


def _error_detail(error: HTTPError) -> str:
    try:
        return ErrorResponse.model_validate_json(error.read()).error
    except ValidationError:
        return f"{error.code} {error.reason}."
