"""Masks of volumes: NIfTI files and DICOM series, with the milliliters of each class.

Output files below OUTPUT, for a volume P1:

    prediction.json        which bundle predicted the masks; written first
    P1.nii.gz or P1.dcm    the mask in the geometry of the volume: 0, or the value of a class in the
                           training masks (its index, if they are in color, and in a DICOM SEG)
    volumes.csv            one row per volume: slices, milliliters of each class, and SHA-256 of its
                           files

A volume whose mask and row exist is not predicted again, and the rows of other volumes are kept.
The slices are given to the bundle in the standard order (contract.imaging.volume), as `segfleet
import` writes them, whatever their order in the file is.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from contract.errors import DataError, UserError, last_line
from contract.imaging.dicom_seg import check_segmentation_source, encode_segmentation
from contract.imaging.encode import value_table
from contract.imaging.mask_values import count_voxels
from contract.imaging.nifti import encode_nifti, is_nifti
from contract.imaging.segmentation_class import SegmentationClass, VolumeFormat
from contract.imaging.volume import Volume
from contract.imaging.volume_files import VolumeFile, find_volumes
from contract.progress import ProgressCallback, no_progress
from contract.storage import LocalStorage, Storage, open_storage
from contract.tables import to_csv
from inference.batch.predict_files import Failures, record_bundle
from inference.predictor import Predictor

TABLE = "volumes.csv"
_SUFFIXES: dict[VolumeFormat, str] = {"nifti": ".nii.gz", "dicom-seg": ".dcm"}
_ML = "_ml"
_DIGEST = "sha256"


@dataclass(frozen=True)
class VolumeJob:
    """The volumes by the name of their mask, and where the masks are written to."""

    volumes: dict[str, VolumeFile]
    output: Storage
    volume_format: VolumeFormat

    def mask_key(self, name: str) -> str:
        """The key of a volume's mask."""
        return f"{name}{_SUFFIXES[self.volume_format]}"


@dataclass(frozen=True)
class Volumetry:
    """A row of volumes.csv."""

    patient: str
    """The name of the volume."""
    slices: int
    ml: dict[str, float]
    """Milliliters of each class."""
    digest: str
    """SHA-256 of the volume's files."""


def create_volume_job(source: str, output: str, volume_format: VolumeFormat) -> VolumeJob:
    """The job for a user's INPUT and OUTPUT.

    Raises DataError if there is no volume, OUTPUT is a file or inside INPUT, or a DICOM
    segmentation is requested for a NIfTI file.
    """
    folder, storage = Path(source).expanduser(), open_storage(output)
    if is_nifti(output):
        raise DataError(f"OUTPUT {output} is named like a NIfTI file: name a folder.")
    if isinstance(storage, LocalStorage) and storage.path.resolve().is_relative_to(
        folder.resolve()
    ):
        raise DataError(f"OUTPUT {output} is inside INPUT: name a folder outside of it.")
    volumes = find_volumes(folder).volumes
    for volume in volumes:
        if volume_format == "dicom-seg" and not volume.series:
            raise DataError(
                f"{volume.label} is not a DICOM series, which a DICOM SEG refers to: leave out "
                "--format."
            )
    if not volumes:
        raise DataError(f"there is no DICOM series and no NIfTI file in {source}.")
    return VolumeJob(_number_names(volumes), storage, volume_format)


def resume_volumes(job: VolumeJob, source: Storage) -> tuple[dict[str, Volumetry], list[str]]:
    """The rows of finished volumes, and the names of the others.

    Records at the output which bundle predicts.

    Args:
        job: The job.
        source: The bundle.

    Raises:
        DataError: The output contains masks of another bundle, the mask of another volume of the
            same name, or a damaged table.
    """
    expected = {job.mask_key(name) for name in job.volumes}
    present = record_bundle(job.output, expected, source, job.volume_format)
    table = _read_table(job.output) if TABLE in present else {}
    rows = {
        name: table[name] for name in job.volumes if name in table and job.mask_key(name) in present
    }
    for name, row in rows.items():
        if row.digest != job.volumes[name].digest():
            raise DataError(
                f"{job.output.url}/{job.mask_key(name)} is the mask of another volume than "
                f"{job.volumes[name].label}: choose another OUTPUT, or delete the mask."
            )
    return rows, [name for name in job.volumes if name not in rows]


def predict_volumes(
    job: VolumeJob,
    predictor: Predictor,
    names: Sequence[str],
    rows: dict[str, Volumetry],
    batch_size: int,
    on_progress: ProgressCallback = no_progress,
) -> Failures:
    """Predict volumes, and write the table after each of them.

    Args:
        job: The volumes, and where the masks are written to.
        predictor: The bundle.
        names: The volumes to predict.
        rows: The rows of other volumes; those of the predicted ones are added.
        batch_size: Slices given to the predictor together.
        on_progress: Called after each batch of slices.

    Returns:
        The volumes that could not be predicted, and why.
    """
    failures: Failures = {}
    counts: dict[str, int] = {}
    for name in names:
        try:
            counts[name] = _check_volume(job, name)
        except UserError as error:
            failures[name] = str(error)
    total = sum(counts.values())
    first = 0
    for name, slices in counts.items():
        report = partial(_report, on_progress, first, total, name)
        try:
            rows[name] = _predict_volume(job, name, predictor, batch_size, report)
        except UserError as error:
            failures[name] = str(error)
        except (RuntimeError, MemoryError) as error:
            reason = last_line(error)
            failures[name] = f"{name}: {predictor.engine.name} cannot process it ({reason})."
        else:
            _write_table(job, rows, predictor.manifest.classes)
        first += slices
    return failures


def _check_volume(job: VolumeJob, name: str) -> int:
    """The number of slices of a volume; UserError if its mask could not be written."""
    volume = job.volumes[name]
    slices = volume.geometry().to_standard().shape[0]
    if job.volume_format == "dicom-seg":
        assert volume.series is not None
        check_segmentation_source(volume.series)
    return slices


def _number_names(volumes: Sequence[VolumeFile]) -> dict[str, VolumeFile]:
    """Volumes by name; of several with one name, the others get the next free number."""
    own_names = {volume.name for volume in volumes}
    named: dict[str, VolumeFile] = {}
    for volume in volumes:
        numbered = (f"{volume.name}-v{number}" for number in count(2))
        free = (name for name in numbered if name not in named and name not in own_names)
        named[next(free) if volume.name in named else volume.name] = volume
    return named


def _report(
    on_progress: ProgressCallback, first: int, total: int, name: str, done: int, *_: object
) -> None:
    """Report the progress of one volume as that of all."""
    on_progress(first + done, total, name)


def _predict_volume(
    job: VolumeJob,
    name: str,
    predictor: Predictor,
    batch_size: int,
    report: ProgressCallback,
) -> Volumetry:
    """Predict one volume and write its mask; report is called with its predicted slices."""
    volume = job.volumes[name].read()
    geometry = volume.geometry
    labels = predictor.predict_volume(
        volume.to_standard().voxels, batch_size=batch_size, on_progress=report
    )
    mask = Volume(geometry.from_standard(labels), geometry.affine)
    classes = predictor.manifest.classes
    job.output.write(job.mask_key(name), _encode_mask(job, name, mask, classes))
    voxels = count_voxels(labels)
    ml = {
        each.name: voxels[index] * geometry.voxel_ml for index, each in enumerate(classes, start=1)
    }
    return Volumetry(name, len(labels), ml, job.volumes[name].digest())


def _encode_mask(
    job: VolumeJob, name: str, mask: Volume, classes: Sequence[SegmentationClass]
) -> bytes:
    """The file of a mask of class indices."""
    if job.volume_format == "nifti":
        return encode_nifti(replace(mask, voxels=value_table(classes)[mask.voxels]))
    series = job.volumes[name].series
    assert series is not None
    names = [each.name for each in classes]
    return encode_segmentation(series, mask.voxels.astype(np.uint8), names)


def _write_table(
    job: VolumeJob, rows: dict[str, Volumetry], classes: Sequence[SegmentationClass]
) -> None:
    columns = ["patient", "slices", *(f"{each.name}{_ML}" for each in classes), _DIGEST]
    earlier = _read_table(job.output) if job.output.exists(TABLE) else {}
    others = [row for name, row in earlier.items() if name not in job.volumes]
    ordered = [*others, *(rows[name] for name in job.volumes if name in rows)]
    job.output.write(
        TABLE,
        to_csv(
            columns,
            (
                [row.patient, row.slices, *(f"{ml:.3f}" for ml in row.ml.values()), row.digest]
                for row in ordered
            ),
        ),
    )


def _read_table(output: Storage) -> dict[str, Volumetry]:
    """The rows of an earlier prediction by name."""
    text = output.read(TABLE).decode(errors="replace")
    try:
        return {
            row["patient"]: Volumetry(
                row["patient"],
                int(row["slices"]),
                {
                    name.removesuffix(_ML): float(value)
                    for name, value in row.items()
                    if name.endswith(_ML)
                },
                row[_DIGEST],
            )
            for row in csv.DictReader(io.StringIO(text))
        }
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{output.url}/{TABLE} is damaged: delete it.") from error
