"""Counts and latencies of requests, which can be summed over replicas."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

# Latencies are counted in bins 5 % wide, so that a percentile has an error of at most 5 % and a day
# of requests takes a few hundred numbers.
_BIN_RATIO = 1.05
_MIN_LATENCY_S = 1e-4


@dataclass
class RequestStats:
    """Requests by their outcome."""

    requests: int = 0
    rejected: int = 0
    """Ended with 4xx or 503: 408 and 503 mean that the service is too busy, not an error."""
    errors: int = 0
    """Ended with any other 5xx."""
    latencies: Counter[int] = field(default_factory=Counter)
    """Requests that ended with 2xx, by latency bin."""

    def record(self, status: int | None, seconds: float) -> None:
        """Count one request by its HTTP status and how long it took.

        status: None if the client closed the connection before the response.
        """
        self.requests += 1
        if status is None:
            return
        if status == 503 or 400 <= status < 500:
            self.rejected += 1
        elif status >= 500:
            self.errors += 1
        else:
            self.latencies[_latency_bin(seconds)] += 1

    def __add__(self, other: Self) -> "RequestStats":
        return RequestStats(
            self.requests + other.requests,
            self.rejected + other.rejected,
            self.errors + other.errors,
            self.latencies + other.latencies,
        )

    def copy(self) -> "RequestStats":
        """The counts as they are now."""
        return self + type(self)()

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
