"""What the metrics of an evaluation do not say, as far as the dataset shows it."""

from collections.abc import Iterator, Mapping, Sequence

from contract.bundle import Manifest
from trainer.data.dataset_index import Dataset, Split
from trainer.data.importers.slice_files import VolumeRecord, is_center_crop, volume_of_file
from trainer.evaluation.surface_scorer import DistanceUnit

_JPEG = (".jpg", ".jpeg")


def find_limits(
    dataset: Dataset,
    split: Split,
    manifest: Manifest,
    volumes: Mapping[str, VolumeRecord],
    unit: DistanceUnit,
) -> tuple[str, ...]:
    """The limits of an evaluation, as sentences.

    Args:
        dataset: The prepared slices.
        split: The split that is evaluated.
        manifest: That of the bundle.
        volumes: The imported volumes by name; empty if the dataset was not imported.
        unit: Of the distances.
    """
    return (
        *_patient_limits(dataset, split, manifest),
        *_slice_limits(dataset, split, volumes),
        *_distance_limits(unit),
    )


def _patient_limits(dataset: Dataset, split: Split, manifest: Manifest) -> Iterator[str]:
    patients = set(dataset.patients(split))
    train_count = len(patients & manifest.seen_patients(["train"]))
    valid_count = len(patients & manifest.seen_patients(["valid"]))
    tuned_count = len(patients.intersection(manifest.patients.get("valid", ())))
    parents = " or a bundle that its training started from" if manifest.parents else ""
    if train_count:
        yield (
            f"{train_count} of {len(patients)} patients have the name of a patient that the "
            f"network{parents} was trained on: the metrics are not those of new patients."
        )
    if valid_count:
        tuning = ""
        if manifest.tried_settings and tuned_count:
            tuning = f" Its settings of the prediction were also chosen on {tuned_count} of them."
        yield (
            f"{valid_count} of {len(patients)} patients have the name of a patient on which the "
            f"best checkpoint of the network{parents} was chosen, which makes the metrics slightly "
            f"too good.{tuning}"
        )
    if len(patients) == 1:
        yield "There is one patient, so nothing is known of how the metrics vary over patients."


def _slice_limits(
    dataset: Dataset, split: Split, volumes: Mapping[str, VolumeRecord]
) -> Iterator[str]:
    records = dataset.select(split)
    if all(record.foreground > 0.0 for record in records):
        yield (
            "Here every slice has foreground, so the metrics say nothing of slices without "
            "foreground, on which a network may predict some."
        )
    used = {
        name for record in records if (name := volume_of_file(record.image)) and name in volumes
    }
    if any(volumes[name].options.foreground_only for name in used):
        yield (
            "Volumes were imported with --foreground-only: predictions on the slices that are "
            "missing are not counted, neither as false positives nor in distances and volumes."
        )
    crops = sum(is_center_crop(record.image) for record in records) if used else 0
    if crops:
        yield (
            f"{crops} of {len(records)} slices are center crops, which count as further slices in "
            "the metrics of pixels; distances in mm and volumes leave them out."
        )
    yield from _jpeg_limits([record.mask for record in records])


def _jpeg_limits(masks: Sequence[str]) -> Iterator[str]:
    jpeg = sum(mask.lower().endswith(_JPEG) for mask in masks)
    if jpeg:
        yield (
            f"{jpeg} of {len(masks)} masks are JPEG files, whose compression changes pixels at the "
            "contours: the ground truth itself is uncertain there."
        )


def _distance_limits(unit: DistanceUnit) -> Iterator[str]:
    if unit == "px":
        yield (
            "The spacing of the slices is unknown, so HD95 and surface Dice are in pixels within "
            "slices: they cannot be compared with distances in mm, nor between patients whose "
            "pixels have other sizes."
        )
