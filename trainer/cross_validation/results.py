"""The results of a cross-validation, and its files.

Output files in <storage.root>/cross_validations/<run.name>:

    patients.csv            one row per patient: its fold, and its metrics in validation
    patients.png            Dice by fold
    report.html             both, with the settings
    cross_validation.json   the means over all patients with their intervals; written last
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from contract.config import Config
from contract.config.loader import to_toml
from contract.host_info import host_info
from contract.storage import Storage
from contract.tables import format_cell, to_csv
from contract.timestamps import utc_now
from trainer.evaluation.estimates import Estimate, estimate
from trainer.evaluation.metric_columns import format_headings, format_values
from trainer.evaluation.metric_summary import summarize
from trainer.evaluation.scores import METRICS, metric_titles
from trainer.evaluation.surface_scorer import DistanceUnit
from trainer.visualization import html
from trainer.visualization.box_plot import plot_groups

_RECORD = "cross_validation.json"


@dataclass(frozen=True)
class Fold:
    """One fold: its run, and its patients as rows of Evaluation.table()."""

    number: int
    run: str
    bundle: str
    """The addresses of run and bundle."""
    evaluation: str
    """The address of the evaluation of its validation patients."""
    patients: Sequence[Mapping[str, Any]]
    distance_unit: DistanceUnit
    """Of hd95."""


@dataclass(frozen=True)
class CrossValidation:
    """The metrics of all folds; every patient is evaluated by the run that did not train on it."""

    output: str
    """The address of the files that were written."""
    folds: Sequence[Fold]
    bundle: str | None
    """The address of the ensemble of all folds, if there is one."""
    seed: int

    def table(self) -> list[dict[str, Any]]:
        """One row per patient: its fold, then as Evaluation.table(); sorted by patient."""
        rows = [
            {"fold": fold.number, **patient} for fold in self.folds for patient in fold.patients
        ]
        return sorted(rows, key=lambda row: (row["patient"], row["fold"]))

    def estimate_of(self, metric: str) -> Estimate:
        """A metric, such as "dice" or "dice_liver", over the patients of all folds."""
        return estimate([row[metric] for row in self.table()], self.seed)

    @property
    def distance_unit(self) -> DistanceUnit:
        """Of hd95: all folds are of one dataset."""
        return self.folds[0].distance_unit

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics of each patient."""
        columns = self.folds[0].patients[0]
        return [name for name in columns if name not in ("patient", "slices")]


def write_results(result: CrossValidation, config: Config, storage: Storage) -> None:
    """Write the files named above."""
    rows, columns = result.table(), ["patient", "fold", "slices", *result.metrics]
    cells = [[format_cell(row[column]) for column in columns] for row in rows]
    storage.write("patients.csv", to_csv(columns, cells))
    groups = {
        f"fold {fold.number}": [patient["dice"] for patient in fold.patients]
        for fold in result.folds
    }
    plot = plot_groups(groups, "Dice by patient")
    storage.write("patients.png", plot)
    estimates = {name: result.estimate_of(name) for name in result.metrics}
    page = html.render(
        "cross_validation.html",
        {
            "name": config.run.name,
            "created": utc_now(),
            "result": result,
            "rows": sorted(rows, key=lambda row: row["dice"]),
            "metrics": metric_titles(result.distance_unit),
            "class_estimates": {
                name.removeprefix("dice_"): each
                for name, each in estimates.items()
                if name.startswith("dice_")
            },
            "estimates": estimates,
            "plot": plot,
            "settings": to_toml(config),
            "fingerprint": config.fingerprint(),
            "host_info": host_info(),
            "phantom": config.data.source == "phantom",
        },
    )
    storage.write("report.html", page.encode())
    record = {
        "folds": [
            {"fold": fold.number, "run": fold.run, "patients": len(fold.patients)}
            for fold in result.folds
        ],
        **{name: asdict(each) for name, each in estimates.items()},
        "distance_unit": result.distance_unit,
        "bundle": result.bundle,
        "fingerprint": config.fingerprint(),
        "host_info": host_info(),
    }
    storage.write(_RECORD, json.dumps(record, indent=2).encode())


def format_results(result: CrossValidation) -> str:
    """The metrics of each fold and of all patients, for a terminal."""
    lines = [f"{'':8} {'patients':>8}" + format_headings(result.distance_unit)]
    for fold in result.folds:
        means = [summarize(p[name] for p in fold.patients).mean for name in METRICS]
        lines.append(f"fold {fold.number:<3} {len(fold.patients):8}" + format_values(means))
    estimates = [result.estimate_of(name) for name in METRICS]
    count = len(result.table())
    lines.append(f"{'mean':8} {count:8}" + format_values([each.summary.mean for each in estimates]))
    lines.append(f"{'SD':8} {count:8}" + format_values([each.summary.sd for each in estimates]))
    intervals = [each.interval or (None, None) for each in estimates]
    lines.append(f"{'95 % from':17}" + format_values([low for low, _ in intervals]))
    lines.append(f"{'95 % to':17}" + format_values([high for _, high in intervals]))
    return "\n".join(lines)
