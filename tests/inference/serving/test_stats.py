"""Counts add up over replicas, and percentiles are at most 5 % off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.serving.stats import RequestStats

seconds = st.lists(st.floats(1e-3, 100.0), min_size=1, max_size=50)


def tally_of(values: list[float]) -> RequestStats:
    request_stats = RequestStats()
    for value in values:
        request_stats.record(200, value)
    return request_stats


@given(seconds, st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_close_to_the_exact_one(values: list[float], share: float) -> None:
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    estimate = tally_of(values).percentile(share)
    assert estimate is not None
    assert exact * 0.999 <= estimate <= exact * 1.051


@given(seconds, seconds)
def test_tallies_add_up(first: list[float], second: list[float]) -> None:
    together = tally_of(first) + tally_of(second)
    assert together == tally_of([*first, *second])


def test_only_answers_count_for_latency() -> None:
    request_stats = RequestStats()
    for status in (200, 404, 413, 500, 503, None):
        request_stats.record(status, 1.0)
    assert (request_stats.requests, request_stats.rejected, request_stats.errors) == (6, 3, 1)
    assert request_stats.percentile(0.99) == pytest.approx(1.0, rel=0.05)
    assert RequestStats().percentile(0.5) is None


def test_a_copy_stays_as_it_was() -> None:
    request_stats = tally_of([0.1])
    copy = request_stats.copy()
    request_stats.record(200, 0.2)
    assert (copy.requests, request_stats.requests) == (1, 2)
