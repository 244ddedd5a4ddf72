"""The bootstrap interval of a mean over patients."""

import numpy as np
import pytest

from trainer.evaluation.estimates import estimate


def test_the_interval_is_that_of_the_normal_distribution_for_many_patients() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.1, 400)
    result = estimate(list(values), seed=0)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert result.interval == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.1 * half
    )
    assert result.summary.mean == pytest.approx(values.mean())
    assert estimate(list(values), seed=0) == result


def test_undefined_values_are_excluded() -> None:
    result = estimate([0.2, None, 0.4], seed=0)
    assert (result.summary.mean, result.summary.undefined) == (pytest.approx(0.3), 1)
    assert result.interval == (pytest.approx(0.2), pytest.approx(0.4))
    assert estimate([0.5], seed=0).interval is None
    assert estimate([None], seed=0).summary.mean is None
