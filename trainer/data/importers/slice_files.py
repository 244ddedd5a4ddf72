"""One volume as files of slices: images, masks and the volume's record."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import DataError, NotFoundError
from contract.imaging.encode import encode_int16, encode_labels
from contract.imaging.mask_values import count_voxels
from contract.imaging.volume import Geometry, Volume
from contract.storage import Storage
from trainer.data.importers.labels import LabeledVolume

IMAGES, MASKS, RECORDS = "images", "masks", "volumes"
MANIFEST = "volumes.json"
# The margins of the center crops in pixels of a slice of 512 x 512.
CROP_MARGINS, _CROP_REFERENCE = (40, 80), 512
_NAME = re.compile(r"^(?P<volume>.+?)(-crop\d+)?-(?P<index>\d{4,})$")
_CROP = re.compile(r"-crop\d+-\d{4,}$")
_WRITERS = 8


class ImportOptions(BaseModel):
    """What is written of a volume."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    window: tuple[int, int] | None = None
    """Intensities are clipped to this range; None: they are stored as they are."""
    foreground_only: bool = False
    """Only slices with foreground are written."""
    center_crops: bool = False
    """Each slice is also written without a margin of 40 and of 80 pixels (at 512 x 512)."""
    ignore_origin: bool = False
    """NIfTI labels may have another origin than their volume."""


class VolumeRecord(BaseModel):
    """A volume of a dataset, as in volumes.json, with no headers but geometry and segment names."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    """The start of the names of its slices."""
    patient: str
    spacing_mm: tuple[float, float, float]
    """Distance between rows, between columns and between slices."""
    shape: tuple[int, int, int]
    """Slices, rows, columns."""
    affine: tuple[tuple[float, float, float, float], ...]
    """Maps (slice, row, column, 1) to (x, y, z, 1) in mm, LPS."""
    orientation: str
    """To which side of the patient slices, rows and columns grow."""
    source_orientation: str
    """The same of the files that it was imported from."""
    volume_digest: str
    """SHA-256 of these files."""
    labels_digest: str
    """SHA-256 of the file of the labels."""
    labels: dict[int, int]
    """The number of voxels of each label but 0."""
    label_names: dict[int, str]
    """The names that a DICOM segmentation gives to labels."""
    slices: int
    """The number of images that were written, center crops included."""
    options: ImportOptions
    files: dict[str, str]
    """SHA-256 of each file of its slices."""

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel in milliliters."""
        return Geometry(self.shape, np.array(self.affine, float)).voxel_ml


@dataclass(frozen=True)
class VolumeTask:
    """A volume to import; can be pickled."""

    name: str
    patient: str
    source: LabeledVolume
    options: ImportOptions
    output: Storage
    existing: frozenset[str]
    """Files of slices of this name that exist already."""
    label_names: Mapping[int, str] = field(default_factory=dict)
    """The names that a DICOM segmentation gives to labels."""

    @property
    def record_key(self) -> str:
        """The key of the volume's record."""
        return f"{RECORDS}/{self.name}.json"


def import_volume(task: VolumeTask) -> tuple[VolumeRecord, bool]:
    """Write the slices of a volume and its record, and delete others of the same name.

    Returns:
        The record, and whether the slices existed already.

    Raises:
        DataError: The volume or its labels cannot be read, or do not match.
    """
    digests = task.source.volume.digest(), task.source.labels.digest()
    record = _read_record(task)
    if record and _is_complete(task, record, digests):
        return record, True
    image, labels, source_orientation = _read_pair(task)
    # Whatever an error leaves without a record is not a volume of the dataset.
    task.output.delete(task.record_key)

    def write_slice(index: int) -> dict[str, str]:
        files = dict(_slice_files(task, index, image.voxels[index], labels.voxels[index]))
        for key, data in files.items():
            task.output.write(key, data)
        return {key: hashlib.sha256(data).hexdigest() for key, data in files.items()}

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="slices") as pool:
        written = list(pool.map(write_slice, range(len(image.voxels))))
        files = {key: digest for each in written for key, digest in each.items()}
        list(pool.map(task.output.delete, task.existing - files.keys()))
    record = _create_record(task, image, labels, source_orientation, digests, files)
    task.output.write(task.record_key, record.model_dump_json(indent=1).encode())
    return record, False


def volume_of_file(key: str) -> str | None:
    """The name of the volume that a file of a slice belongs to; None for another file."""
    match = _match_name(key)
    return match["volume"] if match else None


def index_of_file(key: str) -> int:
    """The index in its volume of a file of a slice; ValueError for another file."""
    match = _match_name(key)
    if not match:
        raise ValueError(f"{key} is not the file of a slice of a volume")
    return int(match["index"])


def is_center_crop(key: str) -> bool:
    """Whether a file of a slice is that of a center crop."""
    return bool(_CROP.search(key.rpartition(".")[0]))


def _match_name(key: str) -> re.Match[str] | None:
    return _NAME.match(key.rpartition("/")[2].rpartition(".")[0])


def _read_record(task: VolumeTask) -> VolumeRecord | None:
    try:
        return VolumeRecord.model_validate_json(task.output.read(task.record_key))
    except (NotFoundError, ValidationError):
        return None


def _is_complete(task: VolumeTask, record: VolumeRecord, digests: tuple[str, str]) -> bool:
    """Whether the files of a record exist, are unchanged, and are what would be written now."""
    if (record.patient, record.options) != (task.patient, task.options):
        return False
    if (record.volume_digest, record.labels_digest) != digests:
        return False
    if task.existing != record.files.keys():
        return False

    def is_unchanged(item: tuple[str, str]) -> bool:
        return hashlib.sha256(task.output.read(item[0])).hexdigest() == item[1]

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="slices") as pool:
        return all(pool.map(is_unchanged, record.files.items()))


def _read_pair(task: VolumeTask) -> tuple[Volume, Volume, str]:
    """Image and labels in the standard order, and the orientation of the source."""
    volume, labels = task.source.volume, task.source.labels
    image = volume.read()
    geometry = image.geometry
    window = task.options.window
    voxels = image.voxels if window is None else np.clip(image.voxels, *window)
    if voxels.dtype != np.int16:
        if voxels.max() >= 2**15:
            raise DataError(
                f"{volume.label} has values up to {voxels.max()}, which do not fit in int16: give "
                "a --window."
            )
        voxels = voxels.astype(np.int16)
    mask = labels.read(geometry)
    if task.options.foreground_only and not mask.voxels.any():
        raise DataError(
            f"the labels of {volume.label} have no foreground: leave out --foreground-only."
        )
    return Volume(voxels, image.affine).to_standard(), mask, geometry.orientation


def _slice_files(
    task: VolumeTask, index: int, pixels: NDArray[np.int16], mask: NDArray
) -> Iterator[tuple[str, bytes]]:
    """The keys and contents of the files of a slice and of its center crops."""
    versions = [("", pixels, mask)]
    if task.options.center_crops:
        versions += [
            (f"-crop{margin}", *crop_center(pixels, mask, margin)) for margin in CROP_MARGINS
        ]
    for suffix, version, version_mask in versions:
        if version_mask.any() or not task.options.foreground_only:
            stem = f"{task.name}{suffix}-{index:04d}"
            yield f"{IMAGES}/{stem}.tif", encode_int16(version)
            yield f"{MASKS}/{stem}.png", encode_labels(version_mask)


def crop_center(
    pixels: NDArray[np.int16], mask: NDArray, margin: int
) -> tuple[NDArray[np.int16], NDArray]:
    """A slice without its margin, resized to its former size.

    Args:
        pixels: [H, W]; resized bilinearly.
        mask: [H, W]; resized to the nearest label.
        margin: In pixels of a slice of 512 x 512.

    Returns:
        Both, [H, W].
    """
    height, width = pixels.shape
    rows, columns = (round(margin * side / _CROP_REFERENCE) for side in (height, width))
    inner = slice(rows, height - rows), slice(columns, width - columns)
    size = (width, height)
    return (
        cv2.resize(pixels[inner], size, interpolation=cv2.INTER_LINEAR).astype(np.int16),
        cv2.resize(mask[inner], size, interpolation=cv2.INTER_NEAREST_EXACT).astype(mask.dtype),
    )


def _create_record(
    task: VolumeTask,
    image: Volume,
    labels: Volume,
    source_orientation: str,
    digests: tuple[str, str],
    files: dict[str, str],
) -> VolumeRecord:
    voxels = count_voxels(labels.voxels)
    geometry = image.geometry
    return VolumeRecord(
        name=task.name,
        patient=task.patient,
        spacing_mm=geometry.spacing,
        shape=geometry.shape,
        affine=tuple(tuple(row) for row in geometry.affine.tolist()),
        orientation=geometry.orientation,
        source_orientation=source_orientation,
        volume_digest=digests[0],
        labels_digest=digests[1],
        labels={value: voxels[value] for value in sorted(voxels) if value},
        label_names=dict(task.label_names),
        slices=len(files) // 2,
        options=task.options,
        files=files,
    )
