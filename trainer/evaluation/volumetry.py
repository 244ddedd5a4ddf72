"""Volumes of the classes in milliliters, if the spacing of the slices is known.

Files, for datasets of `segfleet import`:

    volumetry.csv      one row per patient and class: volumes of ground truth and prediction
    volumetry.json     their agreement over patients, by class

Center crops are copies at another scale and are left out.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from contract.storage import Storage
from contract.tables import to_csv
from trainer.data.importers.dataset_import import read_volume_records
from trainer.data.importers.slice_files import VolumeRecord, is_center_crop, volume_of_file
from trainer.evaluation.scores import SliceScore

TABLE, SUMMARY = "volumetry.csv", "volumetry.json"
# Standard deviations within which 95 % of normally distributed differences are.
_LIMITS = 1.96


@dataclass(frozen=True)
class PatientVolume:
    """One class of a patient in milliliters."""

    patient: str
    class_name: str
    truth_ml: float
    predicted_ml: float

    @property
    def difference_ml(self) -> float:
        """Prediction minus ground truth."""
        return self.predicted_ml - self.truth_ml

    @property
    def difference_percent(self) -> float | None:
        """The difference in percent of the ground truth; None if that is empty."""
        return 100.0 * self.difference_ml / self.truth_ml if self.truth_ml else None


@dataclass(frozen=True)
class VolumeAgreement:
    """The agreement of predicted and true volumes over patients; None if it is undefined."""

    patients: int
    mean_difference_ml: float
    """Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8."""
    limits_ml: tuple[float, float] | None
    """The limits of agreement: mean difference - and + 1.96 standard deviations."""
    mean_absolute_difference_percent: float | None
    pearson: float | None
    """Correlation coefficient, -1 to 1."""
    icc: float | None
    """Intraclass correlation ICC(2,1): two-way random effects, absolute agreement, single
    measurement (Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420)."""


def write_volumetry(
    scores: Sequence[SliceScore], classes: Sequence[str], dataset: Storage, destination: Storage
) -> None:
    """Write both files; nothing if the spacing of the slices is not known.

    classes: the names of the classes; dataset: the folder of the slices. Raises StorageError if its
    volumes.json is damaged.
    """
    records = read_volume_records(dataset)
    volumes = measure_volumes(scores, classes, records) if records else []
    if not volumes:
        return
    rows = (
        (
            each.patient,
            each.class_name,
            *(f"{ml:.3f}" for ml in (each.truth_ml, each.predicted_ml, each.difference_ml)),
            None if each.difference_percent is None else f"{each.difference_percent:.2f}",
        )
        for each in volumes
    )
    columns = (
        "patient",
        "class",
        "truth_ml",
        "predicted_ml",
        "difference_ml",
        "difference_percent",
    )
    destination.write(TABLE, to_csv(columns, rows))
    agreement = {
        name: asdict(summarize_agreement([each for each in volumes if each.class_name == name]))
        for name in classes
    }
    destination.write(SUMMARY, json.dumps(agreement, indent=2).encode())


def measure_volumes(
    scores: Iterable[SliceScore], classes: Sequence[str], records: Mapping[str, VolumeRecord]
) -> list[PatientVolume]:
    """The volumes of patients, sorted by name, from the slices whose spacing is known.

    classes: their names; records: the imported volumes by name. Several volumes of a patient are
    added.
    """
    true_ml: dict[tuple[str, str], float] = {}
    predicted: dict[tuple[str, str], float] = {}
    for score in scores:
        record = records.get(volume_of_file(score.slice.image) or "")
        if record is None or is_center_crop(score.slice.image):
            continue
        for name, counts in zip(classes, score.counts, strict=True):
            key, ml = (score.slice.patient, name), record.voxel_ml
            true_ml[key] = true_ml.get(key, 0.0) + (counts.tp + counts.fn) * ml
            predicted[key] = predicted.get(key, 0.0) + (counts.tp + counts.fp) * ml
    return [
        PatientVolume(patient, name, true_ml[patient, name], predicted[patient, name])
        for patient in sorted({patient for patient, _ in true_ml})
        for name in classes
    ]


def summarize_agreement(volumes: Sequence[PatientVolume]) -> VolumeAgreement:
    """The agreement over patients; volumes: at least one."""
    differences = [each.difference_ml for each in volumes]
    mean = statistics.fmean(differences)
    spread = _LIMITS * statistics.stdev(differences) if len(volumes) > 1 else None
    percents = [abs(p) for each in volumes if (p := each.difference_percent) is not None]
    true_ml = [each.truth_ml for each in volumes]
    predicted = [each.predicted_ml for each in volumes]
    return VolumeAgreement(
        patients=len(volumes),
        mean_difference_ml=mean,
        limits_ml=None if spread is None else (mean - spread, mean + spread),
        mean_absolute_difference_percent=statistics.fmean(percents) if percents else None,
        pearson=pearson(true_ml, predicted),
        icc=intraclass_correlation(true_ml, predicted),
    )


def pearson(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation coefficient; None for fewer than two pairs or equal values."""
    if len(first) < 2 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return statistics.correlation(first, second)


def intraclass_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """ICC(2,1) of two measurements of each patient; None for fewer than two patients.

    With the mean squares of rows (patients), columns (measurements) and errors of n patients:

        ICC = (MSR - MSE) / (MSR + MSE + 2 (MSC - MSE) / n)
    """
    n = len(first)
    if n < 2:
        return None
    grand = statistics.fmean([*first, *second])
    row_means = [(a + b) / 2.0 for a, b in zip(first, second, strict=True)]
    column_means = [statistics.fmean(first), statistics.fmean(second)]
    rows = 2.0 * math.fsum((mean - grand) ** 2 for mean in row_means)
    columns = n * math.fsum((mean - grand) ** 2 for mean in column_means)
    total = math.fsum((value - grand) ** 2 for value in (*first, *second))
    mean_rows, mean_errors = rows / (n - 1), (total - rows - columns) / (n - 1)
    denominator = mean_rows + mean_errors + 2.0 * (columns - mean_errors) / n
    return (mean_rows - mean_errors) / denominator if denominator > 0.0 else None
