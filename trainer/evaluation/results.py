"""The files of an evaluation: evaluation.csv, summary.json and the previews."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from contract.storage import Storage
from contract.tables import to_csv
from trainer.evaluation.scores import METRICS, Evaluation, PatientScore

_COUNTS = ("tp", "fp", "fn", "tn")


def write_results(evaluation: Evaluation, destination: Storage) -> None:
    """Write the previews and tables of an evaluation, summary.json last."""
    for name, png in evaluation.previews.items():
        destination.write(f"{name}.png", png)
    destination.write("evaluation.csv", patients_csv(evaluation.patients, evaluation.classes))
    summary = json.dumps(evaluation_summary(evaluation), indent=2)
    destination.write("summary.json", summary.encode())


def patients_csv(patients: Iterable[PatientScore], classes: Sequence[str]) -> bytes:
    """evaluation.csv: one row per patient and class; an undefined metric is an empty field.

    With several classes there is also a row "mean" of each patient, whose counts are empty fields.
    """
    rows = []
    for patient in patients:
        for class_name, counts in zip(classes, patient.counts, strict=True):
            metrics = [getattr(counts, name) for name in METRICS]
            pixels = [getattr(counts, name) for name in _COUNTS]
            row = [patient.patient, class_name, patient.slices, *map(_format, metrics), *pixels]
            rows.append([*row, "yes" if counts.empty else "no"])
        if len(classes) > 1:
            metrics = [patient.metric(name) for name in METRICS]
            row = [patient.patient, "mean", patient.slices, *map(_format, metrics)]
            rows.append([*row, *[None] * len(_COUNTS), "yes" if patient.empty else "no"])
    return to_csv(["patient", "class", "slices", *METRICS, *_COUNTS, "empty"], rows)


def _format(metric: float | None) -> str | None:
    return None if metric is None else f"{metric:.6g}"


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
            "fingerprint": evaluation.fingerprint,
            "training_fingerprint": manifest.dataset,
        },
        "host_info": evaluation.host_info,
        "created": evaluation.created,
    }
