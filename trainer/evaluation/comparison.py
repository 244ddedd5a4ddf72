"""The metrics of two bundles on the same patients, in pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.evaluation.estimates import Estimate, estimate
from trainer.evaluation.metric_summary import MetricSummary, summarize
from trainer.evaluation.scores import METRICS, Evaluation, PatientScore
from trainer.evaluation.signed_rank import SignedRankTest, signed_rank_test


@dataclass(frozen=True)
class PairedMetric:
    """A metric of both bundles over the patients for which it is defined for both."""

    a: MetricSummary
    b: MetricSummary
    difference: Estimate
    """B minus A; `undefined` counts the patients that are left out. Its interval is the percentile
    bootstrap over patients."""
    test: SignedRankTest
    """Of the differences."""


@dataclass(frozen=True)
class Comparison:
    """Two bundles, A and B, on the same patients."""

    references: tuple[str, str]
    """What the user calls A and B."""
    a: Evaluation
    b: Evaluation
    seed: int
    """Of the bootstrap."""
    output: str
    """The address of the files that were written."""

    @property
    def patients(self) -> list[tuple[PatientScore, PatientScore]]:
        """The scores of each patient by A and B, sorted by name."""
        return list(zip(self.a.patients, self.b.patients, strict=True))

    @property
    def limits(self) -> dict[str, list[str]]:
        """What the metrics do not say, as sentences, by "both", "a" and "b"."""
        return {
            "both": [limit for limit in self.a.limits if limit in self.b.limits],
            "a": [limit for limit in self.a.limits if limit not in self.b.limits],
            "b": [limit for limit in self.b.limits if limit not in self.a.limits],
        }

    def values(
        self, metric: str, class_name: str | None = None
    ) -> Iterator[tuple[float | None, float | None]]:
        """A metric, one of METRICS, of each patient by A and B; class_name as for summary_of."""
        for pair in self.patients:
            if class_name is None:
                first, second = (patient.metric(metric) for patient in pair)
            else:
                index = self.a.classes.index(class_name)
                first, second = (patient.class_metrics(metric)[index] for patient in pair)
            yield first, second

    def summary_of(self, metric: str, class_name: str | None = None) -> PairedMetric:
        """The summary of a metric, one of METRICS; class_name as for Evaluation.summary_of."""
        pairs = list(self.values(metric, class_name))
        defined = [(a, b) for a, b in pairs if a is not None and b is not None]
        return PairedMetric(
            a=summarize(a for a, _ in defined),
            b=summarize(b for _, b in defined),
            difference=estimate([subtract(b, a) for a, b in pairs], self.seed),
            test=signed_rank_test([b - a for a, b in defined]),
        )

    def table(self) -> list[dict[str, Any]]:
        """One row per patient and class, and with several classes one of their mean.

        The columns are patient, class, slices, and for each metric its value by A, by B and B minus
        A, such as dice_a, dice_b and dice_difference; None if it is undefined.
        """
        names: Sequence[str | None] = self.a.classes
        if len(names) > 1:
            names = [*names, None]
        columns = {name: [list(self.values(metric, name)) for metric in METRICS] for name in names}
        return [
            {
                "patient": patient.patient,
                "class": "mean" if name is None else name,
                "slices": patient.slices,
                **_metric_cells([values[index] for values in columns[name]]),
            }
            for index, patient in enumerate(self.a.patients)
            for name in names
        ]


def subtract(first: float | None, second: float | None) -> float | None:
    """The difference of two metrics; None if one of them is undefined."""
    return None if first is None or second is None else first - second


def _metric_cells(
    pairs: Sequence[tuple[float | None, float | None]],
) -> dict[str, float | None]:
    cells: dict[str, float | None] = {}
    for metric, (a, b) in zip(METRICS, pairs, strict=True):
        cells |= {f"{metric}_a": a, f"{metric}_b": b, f"{metric}_difference": subtract(b, a)}
    return cells
