"""Counts and latencies of requests that can be added up over replicas."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

# Latencies are counted in classes 5 % wide, so that a percentile is at most 5 % off and a day of
# requests takes a few hundred numbers.
_STEP = 1.05
_LEAST_S = 1e-4


@dataclass
class RequestStats:
    """Requests by how they ended."""

    requests: int = 0
    rejected: int = 0
    """Ended with 4xx, or with 503: 408 and 503 tell of too much to do, not of a fault."""
    errors: int = 0
    """Ended with any other 5xx."""
    latencies: Counter[int] = field(default_factory=Counter)
    """Requests answered with 2xx by latency class."""

    def record(self, status: int | None, seconds: float) -> None:
        """Count one request by its HTTP status and how long it took.

        status: None where it was given up before it was answered.
        """
        self.requests += 1
        if status is None:
            return
        if status == 503 or 400 <= status < 500:
            self.rejected += 1
        elif status >= 500:
            self.errors += 1
        else:
            self.latencies[_class(seconds)] += 1

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

    def percentile(self, share: float) -> float | None:
        """Seconds within which this share (0 to 1) was answered; None where none was."""
        total = self.latencies.total()
        if not total:
            return None
        wanted, seen = math.ceil(share * total), 0
        for place in sorted(self.latencies):
            seen += self.latencies[place]
            if seen >= wanted:
                return _seconds(place)
        return None


def _class(seconds: float) -> int:
    return max(0, math.ceil(math.log(max(seconds, _LEAST_S) / _LEAST_S, _STEP)))


def _seconds(place: int) -> float:
    """The upper end of a latency class."""
    return round(_LEAST_S * _STEP**place, 6)
