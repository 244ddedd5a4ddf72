"""The limits of a replica: requests in flight, and seconds until a response."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
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

    def __init__(self, max_slices: int, max_queued: int) -> None:
        """max_slices: decoded and not yet segmented; max_queued: further requests."""
        self.slices = asyncio.Semaphore(max_slices)
        """Held while a slice is decoded and segmented."""
        self._max_requests, self._requests = max_slices + max_queued, 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Held from before a body is read; RequestError (503) if there are too many requests."""
        if self._requests >= self._max_requests:
            raise RequestError(
                503, "Too many requests are waiting: try again later.", {"Retry-After": "1"}
            )
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1


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
