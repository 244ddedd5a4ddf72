"""The limits of a replica: requests in flight, and seconds until a response."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import final


class RequestError(Exception):
    """A request that is rejected: its HTTP status and one sentence."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers


@final
class ConcurrencyLimiter:
    """Limits what a replica has in flight."""

    def __init__(self, max_slices: int, max_queued: int, max_bytes: int) -> None:
        """max_slices: decoded and not yet segmented; max_queued: further requests; max_bytes: of a
        body."""
        self.slices = asyncio.Semaphore(max_slices)
        """Held while a slice is decoded and segmented."""
        self._max_requests, self._requests = max_slices + max_queued, 0
        self._max_received, self._received = self._max_requests * max_bytes, 0

    @property
    def in_flight(self) -> int:
        """Requests whose body is complete and that have no response yet."""
        return self._requests

    @contextmanager
    def request(self) -> Iterator[None]:
        """Held once a body is complete; RequestError (503) if there are too many requests."""
        if self._requests >= self._max_requests:
            raise _too_busy()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextmanager
    def receiving(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that counts received bytes while a body is held.

        Bytes that a client has only declared do not count, so slow clients leave room for others.
        The function raises RequestError (503) if all bodies together are too large.
        """
        received = 0

        def count_received_bytes(num_bytes: int) -> None:
            nonlocal received
            if self._received + num_bytes > self._max_received:
                raise _too_busy()
            self._received += num_bytes
            received += num_bytes

        try:
            yield count_received_bytes
        finally:
            self._received -= received


def _too_busy() -> RequestError:
    return RequestError(
        503, "Too many requests are waiting: try again later.", {"Retry-After": "1"}
    )


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncGenerator[None, None]:
    """RequestError (408) if the block takes longer."""
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise RequestError(
            408, f"The request was not answered within {seconds:g} s: try again later."
        ) from error
