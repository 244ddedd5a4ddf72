"""The scores of slices and patients, their order, and the result of an evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.bundle import Manifest
from contract.confusion import ConfusionCounts
from contract.host_info import HostInfo
from trainer.data.dataset_index import SliceRecord, Split
from trainer.evaluation.metric_summary import MetricSummary, summarize

METRICS = ("dice", "iou", "sensitivity", "specificity")


@dataclass(frozen=True)
class SliceScore:
    """The confusion counts of one slice."""

    slice: SliceRecord
    counts: ConfusionCounts


@dataclass(frozen=True)
class PatientScore:
    """The confusion counts of all slices of a patient; counts.dice is the Dice of the volume."""

    patient: str
    slices: int
    counts: ConfusionCounts


@dataclass(frozen=True)
class EmptyMaskCounts:
    """How often the ground truth is empty, and how often the prediction is not empty there."""

    patients: int
    patients_predicted: int
    slices: int
    slices_predicted: int


@dataclass(frozen=True)
class Evaluation:
    """The scores of a bundle on a split."""

    manifest: Manifest
    settings: str
    """The bundle's config.toml: the settings it was trained with."""
    bundle: str
    dataset: str
    """The addresses of bundle and slices."""
    output: str
    """The address of the files that were written."""
    fingerprint: str
    """Of the dataset."""
    split: Split
    patients: tuple[PatientScore, ...]
    """Sorted by name."""
    slices: tuple[SliceScore, ...]
    """In the order of the dataset."""
    previews: Mapping[str, bytes]
    """PNGs by name: worst, best, worst-patient and, with two patients or more, best-patient."""
    host_info: HostInfo
    created: str
    """When, ISO 8601 in UTC."""

    def summary_of(self, name: str) -> MetricSummary:
        """The summary over patients of "dice", "iou", "sensitivity" or "specificity"."""
        return summarize(getattr(patient.counts, name) for patient in self.patients)

    def table(self) -> list[dict[str, Any]]:
        """One row per patient: patient, slices, and each metric, None if it is undefined.

        pandas.DataFrame(evaluation.table()) is a table of it.
        """
        return [
            {
                "patient": patient.patient,
                "slices": patient.slices,
                **{name: getattr(patient.counts, name) for name in METRICS},
            }
            for patient in self.patients
        ]

    @property
    def empty_masks(self) -> EmptyMaskCounts:
        """How often the ground truth is empty."""
        patients = [patient.counts for patient in self.patients if patient.counts.empty]
        slices = [score.counts for score in self.slices if score.counts.empty]
        return EmptyMaskCounts(
            patients=len(patients),
            patients_predicted=sum(not counts.predicted_empty for counts in patients),
            slices=len(slices),
            slices_predicted=sum(not counts.predicted_empty for counts in slices),
        )


def score_patients(scores: Iterable[SliceScore]) -> tuple[PatientScore, ...]:
    """The sums of the counts of each patient's slices, sorted by name."""
    counts: dict[str, list[ConfusionCounts]] = {}
    for score in scores:
        counts.setdefault(score.slice.patient, []).append(score.counts)
    return tuple(
        PatientScore(patient, len(of_patient), sum(of_patient, ConfusionCounts()))
        for patient, of_patient in sorted(counts.items())
    )


def rank_patients(patients: Iterable[PatientScore]) -> list[PatientScore]:
    """The patients from the lowest Dice to the highest."""
    return sorted(patients, key=lambda patient: (patient.counts.dice, patient.patient))


def rank_slices(scores: Sequence[SliceScore]) -> list[SliceScore]:
    """Slices from the lowest Dice to the highest, of equals the one with more wrong pixels first.

    Slices with an empty mask and an empty prediction are included only if there are no others.
    """
    informative = [s for s in scores if not (s.counts.empty and s.counts.predicted_empty)]
    return sorted(informative or scores, key=lambda s: (s.counts.dice, -s.counts.fp - s.counts.fn))
