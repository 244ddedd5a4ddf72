"""The mean of a metric over patients with a bootstrap confidence interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.metric_summary import MetricSummary, summarize

_RESAMPLES = 10_000
_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A metric over patients."""

    summary: MetricSummary
    interval: tuple[float, float] | None
    """95 % confidence interval of the mean; None with fewer than two patients."""


def estimate(values: Sequence[float | None], seed: int) -> Estimate:
    """The mean over patients and its interval; None is an undefined value, which is excluded.

    The interval is the percentile bootstrap (Efron 1979): the patients are drawn with replacement
    10,000 times, and the interval contains the central 95 % of the means.
    """
    defined = np.array([value for value in values if value is not None])
    interval = None
    if len(defined) > 1:
        rng = np.random.default_rng(seed)
        chosen = rng.integers(len(defined), size=(_RESAMPLES, len(defined)))
        low, high = np.quantile(defined[chosen].mean(axis=1), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        interval = float(low), float(high)
    return Estimate(summarize(values), interval)
