"""The files of an evaluation: evaluation.csv, summary.json and the previews."""

import json
from collections.abc import Iterable
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
    destination.write("evaluation.csv", patients_csv(evaluation.patients))
    summary = json.dumps(evaluation_summary(evaluation), indent=2)
    destination.write("summary.json", summary.encode())


def patients_csv(patients: Iterable[PatientScore]) -> bytes:
    """evaluation.csv: one row per patient; an undefined metric is an empty field."""
    rows = []
    for patient in patients:
        metrics = [getattr(patient.counts, name) for name in METRICS]
        formatted = [None if metric is None else f"{metric:.6g}" for metric in metrics]
        counts = [getattr(patient.counts, name) for name in _COUNTS]
        is_empty = "yes" if patient.counts.empty else "no"
        rows.append([patient.patient, patient.slices, *formatted, *counts, is_empty])
    return to_csv(["patient", "slices", *METRICS, *_COUNTS, "empty"], rows)


def evaluation_summary(evaluation: Evaluation) -> dict[str, Any]:
    """summary.json: the metrics over patients, and what they were computed from."""
    manifest = evaluation.manifest
    return {
        "split": evaluation.split,
        "patients": len(evaluation.patients),
        "slices": len(evaluation.slices),
        **{name: asdict(evaluation.summary_of(name)) for name in METRICS},
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
