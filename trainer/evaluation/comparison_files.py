"""The files of a comparison: compare.csv, compare.html, compare.json and its images."""

import json
from dataclasses import asdict
from typing import Any

from contract.plurals import pluralize
from contract.storage import Storage
from contract.tables import format_cell, to_csv
from trainer.evaluation.comparison import Comparison, PairedMetric, subtract
from trainer.evaluation.scores import METRICS, Evaluation, metric_titles
from trainer.visualization import html
from trainer.visualization.box_plot import plot_pairs
from trainer.visualization.overlays import LEGEND, OUTLINE_A, OUTLINE_B


def write_comparison(
    comparison: Comparison, differences: bytes | None, destination: Storage, *, is_phantom: bool
) -> None:
    """Write the files of a comparison, compare.json last.

    differences: the PNG with the slices that differ most; None if no patient differs.
    """
    rows = comparison.table()
    cells = [[format_cell(value) for value in row.values()] for row in rows]
    destination.write("compare.csv", to_csv(list(rows[0]), cells))
    plot = plot_pairs(
        [patient.metric("dice") or 0.0 for patient in comparison.a.patients],
        [patient.metric("dice") or 0.0 for patient in comparison.b.patients],
        "Dice by patient",
    )
    destination.write("pairs.png", plot)
    if differences:
        destination.write("differences.png", differences)
    page = render_comparison(comparison, plot, differences, is_phantom=is_phantom)
    destination.write("compare.html", page.encode())
    destination.write("compare.json", json.dumps(comparison_summary(comparison), indent=2).encode())


def render_comparison(
    comparison: Comparison, plot: bytes, differences: bytes | None, *, is_phantom: bool
) -> str:
    """compare.html; plot and differences: PNGs."""
    patients = [
        {"a": a, "b": b, "difference": subtract(b.metric("dice"), a.metric("dice"))}
        for a, b in comparison.patients
    ]
    classes = comparison.a.classes if len(comparison.a.classes) > 1 else ()
    return html.render(
        "compare.html",
        {
            "comparison": comparison,
            "evaluations": {"A": comparison.a, "B": comparison.b},
            "references": dict(zip("AB", comparison.references, strict=True)),
            "classes": comparison.a.manifest.classes,
            "titles": metric_titles(comparison.a.distance_unit),
            "metrics": {name: comparison.summary_of(name) for name in METRICS},
            "class_dice": {name: comparison.summary_of("dice", name) for name in classes},
            "patients": sorted(patients, key=lambda each: -abs(each["difference"] or 0.0)),
            "plot": plot,
            "differences": differences,
            "phantom": is_phantom,
            "colors": LEGEND,
            "outlines": {"A": OUTLINE_A, "B": OUTLINE_B},
        },
    )


def comparison_summary(comparison: Comparison) -> dict[str, Any]:
    """compare.json: the metrics of both bundles, their differences, and where they come from.

    A difference is B minus A.
    """
    evaluation = comparison.a
    return {
        "split": evaluation.split,
        "patients": len(evaluation.patients),
        "slices": len(evaluation.slices),
        "distance_unit": evaluation.distance_unit,
        "surface_tolerance": evaluation.surface_tolerance,
        **{name: asdict(comparison.summary_of(name)) for name in METRICS},
        "classes": {
            class_name: {name: asdict(comparison.summary_of(name, class_name)) for name in METRICS}
            for class_name in evaluation.classes
        },
        "limits": comparison.limits,
        "a": _describe_bundle(comparison.references[0], comparison.a),
        "b": _describe_bundle(comparison.references[1], comparison.b),
        "dataset": {"root": evaluation.dataset, "fingerprint": evaluation.fingerprint},
        "host_info": evaluation.host_info,
        "created": comparison.b.created,
    }


def format_comparison(comparison: Comparison) -> str:
    """The Dice of each patient by A and B, and the mean difference, for a terminal."""
    width = max(len("patient"), *(len(each.patient) for each in comparison.a.patients))
    lines = [
        f"{name}: {reference}" for name, reference in zip("AB", comparison.references, strict=True)
    ]
    lines.append(f"{'patient':{width}} {'slices':>6} {'A':>8} {'B':>8} {'B - A':>8}")
    for (patient, _), (a, b) in zip(comparison.patients, comparison.values("dice"), strict=True):
        cells = "".join(f" {_cell(value):>8}" for value in (a, b, subtract(b, a)))
        lines.append(f"{patient.patient:{width}} {patient.slices:>6}{cells}")
    dice = comparison.summary_of("dice")
    means = dice.a.mean, dice.b.mean, dice.difference.summary.mean
    cells = "".join(f" {_cell(value):>8}" for value in means)
    lines.append(f"{'mean':{width}} {len(comparison.a.slices):>6}{cells}")
    return "\n".join([*lines, describe_difference(dice)])


def describe_difference(dice: PairedMetric) -> str:
    """The interval of the mean difference of Dice, and the test of the differences, as lines."""
    interval = dice.difference.interval
    low, high = interval or (None, None)
    counts = f"{pluralize(dice.test.pairs, 'patient')} with a difference, {dice.test.zeros} without"
    p_value = "undefined" if dice.test.p_value is None else f"{dice.test.p_value:.4g}"
    if dice.test.has_too_few_pairs:
        counts += f" (with so few patients p is at least {dice.test.smallest_p_value:.4g})"
    return (
        f"mean difference of Dice: 95 % interval {_cell(low)} to {_cell(high)}\n"
        f"Wilcoxon signed-rank test ({dice.test.method}): p = {p_value}, {counts}"
    )


def _describe_bundle(reference: str, evaluation: Evaluation) -> dict[str, Any]:
    manifest = evaluation.manifest
    return {
        "reference": reference,
        "name": manifest.name,
        "bundle": evaluation.bundle,
        "fingerprint": manifest.fingerprint,
        "commit": manifest.commit,
        "created": manifest.created,
        "training_dataset": manifest.dataset,
        "evaluation": evaluation.output,
    }


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
