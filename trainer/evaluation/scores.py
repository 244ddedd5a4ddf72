"""The scores of slices and patients, their order, and the result of an evaluation."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.bundle import Manifest
from contract.confusion import ConfusionCounts, pooled_counts
from contract.host_info import HostInfo
from trainer.data.dataset_index import SliceRecord, Split
from trainer.evaluation.calibration import Reliability
from trainer.evaluation.mask_store import MaskStore
from trainer.evaluation.metric_summary import MetricSummary, summarize
from trainer.evaluation.surface_distances import SurfaceScore
from trainer.evaluation.surface_scorer import DistanceUnit

_COUNT_METRICS = ("dice", "iou", "precision", "sensitivity", "specificity", "volume_difference")
_SURFACE_METRICS = ("surface_dice", "hd95")
METRICS = (*_COUNT_METRICS, *_SURFACE_METRICS)
"""The metrics of a patient: those of contract.confusion, then those of surface_distances."""


@dataclass(frozen=True)
class SliceScore:
    """The confusion counts of one slice, by class."""

    slice: SliceRecord
    counts: tuple[ConfusionCounts, ...]

    @property
    def pooled(self) -> ConfusionCounts:
        """The counts of all classes together, by which slices are ranked."""
        return pooled_counts(self.counts)


def metric_titles(unit: DistanceUnit) -> dict[str, str]:
    """The names of the metrics in reports, by metric; unit: that of the distances."""
    return {
        "dice": "Dice",
        "iou": "IoU",
        "precision": "Precision",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "volume_difference": "Volume difference",
        "surface_dice": "Surface Dice",
        "hd95": f"HD95 ({unit})",
    }


@dataclass(frozen=True)
class PatientScore:
    """The confusion counts and the surface metrics, by class, of all slices of a patient."""

    patient: str
    slices: int
    counts: tuple[ConfusionCounts, ...]
    surfaces: tuple[SurfaceScore, ...]

    @property
    def empty(self) -> bool:
        """Whether the ground truth of the volume has no foreground of any class."""
        return pooled_counts(self.counts).empty

    def metric(self, name: str) -> float | None:
        """A metric of the volume: the mean over the classes for which it is defined, if any."""
        return summarize(self.class_metrics(name)).mean

    def class_metrics(self, name: str) -> list[float | None]:
        """A metric of the volume of each class."""
        scores = self.surfaces if name in _SURFACE_METRICS else self.counts
        return [getattr(score, name) for score in scores]


@dataclass(frozen=True)
class SoftScore:
    """The loss and the soft Dice of the probabilities over some slices together."""

    loss: float
    """train.loss, of the main output of the network."""
    dice_coef: tuple[float, ...]
    """Of each class, 0 to 1, as trainer.components.metrics defines it."""


@dataclass(frozen=True)
class EmptyMaskCounts:
    """How often the ground truth is empty, and how often the prediction is not empty there."""

    patients: int
    patients_predicted: int
    slices: int
    slices_predicted: int


@dataclass(frozen=True)
class EmptySurfaceCounts:
    """In how many patients a class has no surface, so that distances do not exist."""

    both_empty: int
    """Neither ground truth nor prediction: surface Dice 1, HD95 0."""
    truth_empty: int
    """The ground truth alone: surface Dice 0, HD95 undefined."""
    prediction_empty: int
    """The prediction alone: surface Dice 0, HD95 undefined."""
    no_common_slice: int
    """Neither, but no slice has both surfaces, and distances are within slices: HD95 undefined."""
    unmatched: int
    """Slices, or volumes if distances are in mm, of all patients in which exactly one of the masks
    has the class (SurfaceScore)."""


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
    distance_unit: DistanceUnit
    """Of HD95 and of the tolerance: mm between the surfaces of volumes, or pixels between contours
    within slices."""
    surface_tolerance: float
    """The tolerance of the surface Dice."""
    slices: tuple[SliceScore, ...]
    """In the order of the dataset."""
    soft: SoftScore
    """Over all slices."""
    patients_soft: Mapping[str, SoftScore]
    """By patient."""
    reliability: Mapping[str, Reliability]
    """Of the probabilities of each class, over all pixels."""
    previews: Mapping[str, bytes]
    """PNGs by name: worst, best, worst-patients, worst-patient and, with two patients or more,
    best-patient."""
    plots: Mapping[str, bytes]
    """PNGs by name: patients, reliability."""
    split_sizes: Mapping[Split, tuple[int, int]]
    """The patients and the slices of each split of the dataset."""
    limits: tuple[str, ...]
    """What the metrics do not say, as sentences."""
    masks: MaskStore
    """The predicted mask of each slice."""
    host_info: HostInfo
    created: str
    """When, ISO 8601 in UTC."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(each.name for each in self.manifest.classes)

    def summary_of(self, name: str, class_name: str | None = None) -> MetricSummary:
        """The summary over patients of a metric, one of METRICS.

        class_name: of one class; None: of the mean over the classes of each patient.
        """
        if class_name is None:
            return summarize(patient.metric(name) for patient in self.patients)
        index = self.classes.index(class_name)
        return summarize(patient.class_metrics(name)[index] for patient in self.patients)

    def table(self) -> list[dict[str, Any]]:
        """One row per patient: patient, slices, and each metric, None if it is undefined.

        With several classes a metric is the mean over them, and that of each class follows with its
        name, such as dice_liver. pandas.DataFrame(evaluation.table()) is a table of it.
        """
        return [
            {
                "patient": patient.patient,
                "slices": patient.slices,
                **{name: patient.metric(name) for name in METRICS},
                **self._class_metrics(patient),
            }
            for patient in self.patients
        ]

    def _class_metrics(self, patient: PatientScore) -> dict[str, float | None]:
        """The metrics of each class, by name; none with a single class."""
        if len(self.classes) == 1:
            return {}
        return {
            f"{name}_{class_name}": patient.class_metrics(name)[index]
            for index, class_name in enumerate(self.classes)
            for name in METRICS
        }

    @property
    def empty_masks(self) -> EmptyMaskCounts:
        """How often the ground truth is empty."""
        patients = [pooled_counts(patient.counts) for patient in self.patients if patient.empty]
        slices = [score.pooled for score in self.slices if score.pooled.empty]
        return EmptyMaskCounts(
            patients=len(patients),
            patients_predicted=sum(not counts.predicted_empty for counts in patients),
            slices=len(slices),
            slices_predicted=sum(not counts.predicted_empty for counts in slices),
        )

    @property
    def empty_surfaces(self) -> dict[str, EmptySurfaceCounts]:
        """In how many patients each class has no surface, by class."""
        surfaces = zip(*(patient.surfaces for patient in self.patients), strict=True)
        return {
            name: _count_empty_surfaces(of_class)
            for name, of_class in zip(self.classes, surfaces, strict=True)
        }


def _count_empty_surfaces(surfaces: Sequence[SurfaceScore]) -> EmptySurfaceCounts:
    cases = Counter((each.truth_empty, each.prediction_empty) for each in surfaces)
    undefined = sum(each.hd95 is None for each in surfaces)
    return EmptySurfaceCounts(
        both_empty=cases[True, True],
        truth_empty=cases[True, False],
        prediction_empty=cases[False, True],
        no_common_slice=undefined - cases[True, False] - cases[False, True],
        unmatched=sum(each.unmatched for each in surfaces),
    )


def score_patients(
    scores: Iterable[SliceScore], surfaces: Mapping[str, tuple[SurfaceScore, ...]]
) -> tuple[PatientScore, ...]:
    """The sums of the counts of each patient's slices, sorted by name.

    surfaces: the surface metrics of each class, by patient.
    """
    counts: dict[str, list[tuple[ConfusionCounts, ...]]] = {}
    for score in scores:
        counts.setdefault(score.slice.patient, []).append(score.counts)
    return tuple(
        PatientScore(
            patient,
            len(slices),
            tuple(map(pooled_counts, zip(*slices, strict=True))),
            surfaces[patient],
        )
        for patient, slices in sorted(counts.items())
    )


def rank_patients(patients: Iterable[PatientScore]) -> list[PatientScore]:
    """The patients from the lowest Dice to the highest."""
    return sorted(patients, key=lambda patient: (patient.metric("dice"), patient.patient))


def rank_slices(scores: Sequence[SliceScore]) -> list[SliceScore]:
    """Slices from the lowest Dice to the highest, of equals the one with more wrong pixels first.

    Slices with an empty mask and an empty prediction are included only if there are no others.
    """
    informative = [s for s in scores if not (s.pooled.empty and s.pooled.predicted_empty)]
    return sorted(informative or scores, key=lambda s: (s.pooled.dice, -s.pooled.fp - s.pooled.fn))
