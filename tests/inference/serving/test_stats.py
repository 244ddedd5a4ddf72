"""Counts add up over replicas, and percentiles are at most 5 % off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.serving.stats import RequestStats

seconds = st.lists(st.floats(1e-3, 100.0), min_size=1, max_size=50)


def tally_of(values: list[float]) -> RequestStats:
    tally = RequestStats()
    for value in values:
        tally.record(200, value)
    return tally


@given(seconds, st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_close_to_the_exact_one(values: list[float], share: float) -> None:
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    found = tally_of(values).percentile(share)
    assert found is not None
    assert exact * 0.999 <= found <= exact * 1.051


@given(seconds, seconds)
def test_tallies_add_up(first: list[float], second: list[float]) -> None:
    together = tally_of(first) + tally_of(second)
    assert together == tally_of([*first, *second])


def test_only_answers_count_for_latency() -> None:
    tally = RequestStats()
    for status in (200, 404, 413, 500, 503, None):
        tally.record(status, 1.0)
    assert (tally.requests, tally.rejected, tally.errors) == (6, 3, 1)
    assert tally.percentile(0.99) == pytest.approx(1.0, rel=0.05)
    assert RequestStats().percentile(0.5) is None


def test_a_copy_stays_as_it_was() -> None:
    tally = tally_of([0.1])
    copy = tally.copy()
    tally.record(200, 0.2)
    assert (copy.requests, tally.requests) == (1, 2)
