"""Wilcoxon's test against SciPy's exact one, against all signs, and where it is undefined."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from trainer.evaluation.signed_rank import SignedRankTest, signed_rank_test

RNG = np.random.default_rng(5)


def test_without_ties_it_is_the_exact_test_of_scipy() -> None:
    for count in (1, 2, 7, 30):
        differences = RNG.normal(0.3, 1.0, count)
        result = signed_rank_test(list(differences))
        expected = stats.wilcoxon(differences, method="exact").pvalue
        assert result.p_value == pytest.approx(expected)
        assert (result.pairs, result.zeros, result.method) == (count, 0, "exact")


def test_with_ties_and_zeros_it_counts_all_signs() -> None:
    differences = [0.1 + 0.2, 0.3, -0.3, 0.0, 0.5, 0.7, 0.7, -0.1, 0.0]
    result = signed_rank_test(differences)
    # Ranks of 0.3, 0.3, -0.3, 0.5, 0.7, 0.7, -0.1; the first two are equal but for rounding.
    ranks = np.array([3.0, 3.0, 3.0, 5.0, 6.5, 6.5, 1.0])
    sums = np.array([ranks[np.array(signs)].sum() for signs in product([False, True], repeat=7)])
    observed = 3.0 + 3.0 + 5.0 + 6.5 + 6.5
    expected = 2.0 * min((sums >= observed).mean(), (sums <= observed).mean())
    assert result.p_value == pytest.approx(expected)
    assert (result.pairs, result.zeros, result.method) == (7, 2, "exact")


def test_many_pairs_have_the_normal_approximation() -> None:
    differences = RNG.normal(0.02, 1.0, 201)
    result = signed_rank_test(list(differences))
    assert result.method == "asymptotic"
    assert result.p_value == pytest.approx(stats.wilcoxon(differences, method="approx").pvalue)
    exact = signed_rank_test(list(differences[:200]))
    assert exact.p_value == pytest.approx(
        stats.wilcoxon(differences[:200], method="approx").pvalue, abs=0.005
    )


def test_without_a_difference_it_is_undefined() -> None:
    assert signed_rank_test([0.0, 1e-15]) == SignedRankTest(None, 0, 2, "exact")
    assert signed_rank_test([]) == SignedRankTest(None, 0, 0, "exact")


def test_the_smallest_p_value_is_that_of_equal_signs() -> None:
    for count, is_too_few in ((1, True), (5, True), (6, False)):
        result = signed_rank_test(list(RNG.uniform(0.1, 1.0, count)))
        assert result.p_value == pytest.approx(result.smallest_p_value)
        assert result.has_too_few_pairs is is_too_few
    assert signed_rank_test([0.0]).smallest_p_value == 1.0
