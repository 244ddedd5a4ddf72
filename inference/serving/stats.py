"""Counts and latencies of requests, which can be summed over replicas."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

# Latencies are counted in bins 5 % wide, so that a percentile has an error of at most 5 % and a day
# of requests takes a few hundred numbers.
_BIN_RATIO = 1.05
_MIN_LATENCY_S = 1e-4
CLIENT_CLOSED = 499
"""The status of a request whose client does not receive a response; nginx uses the same number."""


@dataclass
class RequestStats:
    """Requests by their HTTP status, and the latency of those that succeeded."""

    by_status: Counter[int] = field(default_factory=Counter)
    """CLIENT_CLOSED counts requests whose client closed the connection before the response."""
    latencies: Counter[int] = field(default_factory=Counter)
    """Requests that ended with 2xx, by latency bin."""
    latency_sum_s: float = 0.0
    """Of the requests that ended with 2xx."""

    @property
    def requests(self) -> int:
        """All requests."""
        return self.by_status.total()

    @property
    def rejected(self) -> int:
        """Requests that ended with 4xx or 503: 408 and 503 mean that the service is too busy."""
        return sum(
            count
            for status, count in self.by_status.items()
            if status != CLIENT_CLOSED and (400 <= status < 500 or status == 503)
        )

    @property
    def errors(self) -> int:
        """Requests that ended with any other 5xx."""
        counts = self.by_status.items()
        return sum(count for status, count in counts if status >= 500 and status != 503)

    def record(self, status: int | None, seconds: float) -> None:
        """Count one request by its HTTP status and how long it took.

        status: None if the client closed the connection before the response.
        """
        self.by_status[CLIENT_CLOSED if status is None else status] += 1
        if status is not None and status < 400:
            self.latencies[_latency_bin(seconds)] += 1
            self.latency_sum_s += seconds

    def __add__(self, other: Self) -> "RequestStats":
        return RequestStats(
            self.by_status + other.by_status,
            self.latencies + other.latencies,
            self.latency_sum_s + other.latency_sum_s,
        )

    def copy(self) -> "RequestStats":
        """The counts as they are now."""
        return self + type(self)()

    def count_within(self, seconds: float) -> int:
        """Requests that succeeded within this time, with an error of one bin (5 %)."""
        return sum(n for index, n in self.latencies.items() if _bin_limit(index) <= seconds)

    def percentile(self, fraction: float) -> float | None:
        """Seconds within which this fraction (0 to 1) was answered; None without requests."""
        total = self.latencies.total()
        if not total:
            return None
        rank, seen = math.ceil(fraction * total), 0
        for index in sorted(self.latencies):
            seen += self.latencies[index]
            if seen >= rank:
                return _bin_limit(index)
        return None


def _latency_bin(seconds: float) -> int:
    return max(0, math.ceil(math.log(max(seconds, _MIN_LATENCY_S) / _MIN_LATENCY_S, _BIN_RATIO)))


def _bin_limit(index: int) -> float:
    """The upper limit of a latency bin."""
    return round(_MIN_LATENCY_S * _BIN_RATIO**index, 6)
