"""Wilcoxon's signed-rank test of paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

# Differences that are smaller come from rounding.
_DIGITS = 12
# The exact distribution of more pairs takes seconds, and the normal one is as good.
_MAX_EXACT_PAIRS = 200


@dataclass(frozen=True)
class SignedRankTest:
    """A two-sided Wilcoxon signed-rank test (Wilcoxon 1945, doi:10.2307/3001968)."""

    p_value: float | None
    """The probability of ranks at least as uneven if the differences were symmetric around 0; None
    if all differences are 0."""
    pairs: int
    """Pairs that differ; the test ignores the others."""
    zeros: int
    """Pairs that do not differ."""
    method: Literal["exact", "asymptotic"]
    """exact: all signs of the ranks were counted, also with ties; asymptotic: the normal
    approximation with correction for ties, for more than 200 pairs that differ."""

    @property
    def smallest_p_value(self) -> float:
        """The p-value if all differences that are not 0 had the same sign."""
        return min(1.0, 2.0 ** (1 - self.pairs))

    @property
    def has_too_few_pairs(self) -> bool:
        """Whether p cannot be below 0.05, however large the differences are."""
        return self.smallest_p_value > 0.05


def signed_rank_test(differences: Sequence[float]) -> SignedRankTest:
    """Test whether paired differences are symmetric around 0."""
    rounded = np.round(np.asarray(differences, np.float64), _DIGITS)
    nonzero = rounded[rounded != 0.0]
    p_value: float | None = None
    is_exact = len(nonzero) <= _MAX_EXACT_PAIRS
    if len(nonzero) and is_exact:
        p_value = _exact_p_value(nonzero)
    elif len(nonzero):
        p_value = float(stats.wilcoxon(nonzero, method="asymptotic").pvalue)
    return SignedRankTest(
        p_value,
        pairs=len(nonzero),
        zeros=len(rounded) - len(nonzero),
        method="exact" if is_exact else "asymptotic",
    )


def _exact_p_value(differences: NDArray[np.float64]) -> float:
    """From the distribution of the sum of positive ranks, in which every sign is equally likely."""
    # Ranks of ties are multiples of a half.
    ranks = np.round(2.0 * stats.rankdata(np.abs(differences))).astype(np.int64)
    probability = np.zeros(int(ranks.sum()) + 1)
    probability[0] = 1.0
    for rank in ranks:
        probability[rank:] = probability[rank:] + probability[:-rank]
        probability /= 2.0
    observed = int(ranks[differences > 0.0].sum())
    tails = probability[: observed + 1].sum(), probability[observed:].sum()
    return min(1.0, 2.0 * float(min(tails)))
