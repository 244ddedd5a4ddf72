"""Statistics are summed over replicas, and percentiles have an error of at most 5 %."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.serving.stats import RequestStats

latencies = st.lists(st.floats(1e-3, 100.0), min_size=1, max_size=50)


def stats_of(seconds: list[float]) -> RequestStats:
    """The statistics of successful requests."""
    stats = RequestStats()
    for value in seconds:
        stats.record(200, value)
    return stats


@given(latencies, st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_has_an_error_of_at_most_five_percent(
    seconds: list[float], fraction: float
) -> None:
    exact = float(np.quantile(seconds, fraction, method="inverted_cdf"))
    estimate = stats_of(seconds).percentile(fraction)
    assert estimate is not None
    assert exact * 0.999 <= estimate <= exact * 1.051


@given(latencies, latencies)
def test_the_sum_counts_the_requests_of_both(first: list[float], second: list[float]) -> None:
    total, expected = stats_of(first) + stats_of(second), stats_of([*first, *second])
    assert (total.by_status, total.latencies) == (expected.by_status, expected.latencies)
    assert total.latency_sum_s == pytest.approx(sum(first) + sum(second))


def test_requests_within_a_time_are_counted() -> None:
    stats = stats_of([0.01, 0.02, 0.5])
    assert [stats.count_within(limit) for limit in (0.001, 0.1, 1.0)] == [0, 2, 3]


def test_requests_are_counted_by_outcome_and_only_successes_have_a_latency() -> None:
    stats = RequestStats()
    for status in (200, 404, 413, 500, 503, None):
        stats.record(status, 1.0)
    assert (stats.requests, stats.rejected, stats.errors) == (6, 3, 1)
    assert stats.latencies.total() == 1
    assert stats.percentile(0.99) == pytest.approx(1.0, rel=0.05)
    assert RequestStats().percentile(0.5) is None


def test_a_copy_does_not_change() -> None:
    stats = stats_of([0.1])
    copy = stats.copy()
    stats.record(200, 0.2)
    assert (copy.requests, stats.requests) == (1, 2)
    assert (copy.latencies.total(), stats.latencies.total()) == (1, 2)
