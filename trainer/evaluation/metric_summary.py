"""The mean, deviation and range of a metric over patients."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricSummary:
    """How a metric varies over patients."""

    mean: float | None
    """None if no patient has the metric."""
    sd: float | None
    """Sample standard deviation (n - 1); None with fewer than two patients."""
    min: float | None
    max: float | None
    defined: int
    """Patients for which the metric is defined."""
    undefined: int
    """Patients that are excluded because it is not."""


def summarize(values: Iterable[float | None]) -> MetricSummary:
    """Mean, deviation and range of a metric over patients; None is an undefined value."""
    all_values = list(values)
    defined = [value for value in all_values if value is not None]
    return MetricSummary(
        mean=statistics.fmean(defined) if defined else None,
        sd=statistics.stdev(defined) if len(defined) > 1 else None,
        min=min(defined, default=None),
        max=max(defined, default=None),
        defined=len(defined),
        undefined=len(all_values) - len(defined),
    )
