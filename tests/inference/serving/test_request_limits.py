"""The limits of a replica."""

import asyncio

import pytest

from inference.serving.request_limits import ConcurrencyLimiter, RequestError, time_limit


def test_requests_above_the_limit_are_rejected_until_one_ends() -> None:
    limiter = ConcurrencyLimiter(max_slices=1, max_queued=1, max_bytes=100)
    with limiter.request():
        with limiter.request(), pytest.raises(RequestError, match="Too many requests") as error:
            limiter.request().__enter__()
        assert (error.value.status, error.value.headers) == (503, {"Retry-After": "1"})
        with limiter.request():
            pass


def test_only_received_bytes_count() -> None:
    limiter = ConcurrencyLimiter(max_slices=1, max_queued=1, max_bytes=100)
    with limiter.receiving() as first, limiter.receiving() as second:
        first(100)
        second(100)
        with limiter.receiving() as third, pytest.raises(RequestError, match="Too many") as error:
            third(1)
        assert error.value.status == 503
    with limiter.receiving() as count:
        count(200)


def test_a_time_limit_does_not_change_timeouts_of_its_block() -> None:
    async def run() -> None:
        with pytest.raises(RequestError, match=r"not answered within 0\.01 s") as error:
            async with time_limit(0.01):
                await asyncio.sleep(60)
        assert error.value.status == 408
        with pytest.raises(TimeoutError, match="of the block"):
            async with time_limit(60):
                raise TimeoutError("of the block")

    asyncio.run(run())
