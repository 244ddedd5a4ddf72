"""The files of an evaluation: evaluation.csv, reliability.csv, summary.json, previews and plots."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from contract.storage import Storage
from contract.tables import format_cell, to_csv
from trainer.evaluation.calibration import BINS, Reliability
from trainer.evaluation.scores import METRICS, Evaluation, PatientScore, SoftScore
from trainer.evaluation.surface_scorer import DistanceUnit

_COUNTS = ("tp", "fp", "fn", "tn")


def write_results(evaluation: Evaluation, destination: Storage) -> None:
    """Write the previews, plots and tables of an evaluation, summary.json last."""
    for name, png in evaluation.previews.items():
        destination.write(f"{name}.png", png)
    table = patients_csv(
        evaluation.patients, evaluation.classes, evaluation.patients_soft, evaluation.distance_unit
    )
    destination.write("evaluation.csv", table)
    for name, png in evaluation.plots.items():
        destination.write(f"{name}.png", png)
    destination.write("reliability.csv", reliability_csv(evaluation.reliability))
    summary = json.dumps(evaluation_summary(evaluation), indent=2)
    destination.write("summary.json", summary.encode())


def reliability_csv(reliability: Mapping[str, Reliability]) -> bytes:
    """reliability.csv: one row per class and bin; empty fields for a bin without pixels."""
    columns = ("class", "from", "to", "pixels", "mean_probability", "fraction")
    rows = [
        (
            name,
            index / BINS,
            (index + 1) / BINS,
            each.pixels[index],
            format_cell(each.mean_probability[index]),
            format_cell(each.fraction[index]),
        )
        for name, each in reliability.items()
        for index in range(BINS)
    ]
    return to_csv(columns, rows)


def patients_csv(
    patients: Iterable[PatientScore],
    classes: Sequence[str],
    soft: Mapping[str, SoftScore],
    distance_unit: DistanceUnit,
) -> bytes:
    """evaluation.csv: one row per patient and class; an undefined metric is an empty field.

    With several classes there is also a row "mean" of each patient, whose counts are empty fields.
    distance_unit is that of hd95; unmatched is that of SurfaceScore. The last two columns are of
    probabilities; the loss is one of all classes together.
    """
    rows = []
    for patient in patients:
        loss, soft_dice = soft[patient.patient].loss, soft[patient.patient].dice_coef
        for index, (class_name, counts, surface, soft_class_dice) in enumerate(
            zip(classes, patient.counts, patient.surfaces, soft_dice, strict=True)
        ):
            metrics = [patient.class_metrics(name)[index] for name in METRICS]
            pixels = [getattr(counts, name) for name in _COUNTS]
            row = [patient.patient, class_name, patient.slices, *map(format_cell, metrics), *pixels]
            row += ["yes" if counts.empty else "no", distance_unit, surface.unmatched]
            row += [format_cell(soft_class_dice), format_cell(loss) if len(classes) == 1 else None]
            rows.append(row)
        if len(classes) > 1:
            metrics = [patient.metric(name) for name in METRICS]
            row = [patient.patient, "mean", patient.slices, *map(format_cell, metrics)]
            unmatched = sum(surface.unmatched for surface in patient.surfaces)
            row += [*[None] * len(_COUNTS), "yes" if patient.empty else "no"]
            row += [distance_unit, unmatched]
            rows.append([*row, format_cell(statistics.fmean(soft_dice)), format_cell(loss)])
    columns = ["patient", "class", "slices", *METRICS, *_COUNTS, "empty"]
    return to_csv([*columns, "distance_unit", "unmatched", "soft_dice_coef", "loss"], rows)


def evaluation_summary(evaluation: Evaluation) -> dict[str, Any]:
    """summary.json: the metrics over patients, and what they were computed from."""
    manifest = evaluation.manifest
    return {
        "split": evaluation.split,
        "patients": len(evaluation.patients),
        "slices": len(evaluation.slices),
        **{name: asdict(evaluation.summary_of(name)) for name in METRICS},
        "classes": {
            class_name: {name: asdict(evaluation.summary_of(name, class_name)) for name in METRICS}
            for class_name in evaluation.classes
        },
        "empty_masks": asdict(evaluation.empty_masks),
        "surfaces": {
            "distance_unit": evaluation.distance_unit,
            "tolerance": evaluation.surface_tolerance,
            "empty": {name: asdict(each) for name, each in evaluation.empty_surfaces.items()},
        },
        "calibration": {
            name: {"ece": each.expected_error, "mce": each.maximum_error}
            for name, each in evaluation.reliability.items()
        },
        "limits": evaluation.limits,
        "soft": {
            "loss": evaluation.soft.loss,
            "dice_coef": dict(zip(evaluation.classes, evaluation.soft.dice_coef, strict=True)),
        },
        "model": {
            "name": manifest.name,
            "bundle": evaluation.bundle,
            "fingerprint": manifest.fingerprint,
            "commit": manifest.commit,
            "machine": manifest.machine,
            "created": manifest.created,
        },
        "dataset": {
            "root": evaluation.dataset,
            "splits": {
                name: {"patients": patients, "slices": slices}
                for name, (patients, slices) in evaluation.split_sizes.items()
            },
            "fingerprint": evaluation.fingerprint,
            "training_fingerprint": manifest.dataset,
        },
        "host_info": evaluation.host_info,
        "created": evaluation.created,
    }
