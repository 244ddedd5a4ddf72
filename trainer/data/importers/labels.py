"""The labels of volumes: NIfTI label files and DICOM segmentations, paired and checked.

A segmentation names its series. A NIfTI label file belongs to the volume of the same name, or of
the same name with nnU-Net's channel number (case_0000), or with the same number at its end
(label0001.nii.gz and PANCREAS_0001, as in NIH Pancreas-CT). Whatever the names are, the geometries
of both must coincide.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import DataError
from contract.imaging.dicom import SliceHeader, digest_files
from contract.imaging.dicom_seg import read_segmentation
from contract.imaging.nifti import nifti_stem, read_nifti_geometry, read_nifti_labels
from contract.imaging.volume import Geometry, Volume, list_differences
from contract.imaging.volume_files import VolumeFile

_CHANNEL = re.compile(r"_\d{4}$")
_NUMBER = re.compile(r"\d+(?=\D*$)")


@dataclass(frozen=True)
class LabelFile:
    """A NIfTI label file or a DICOM segmentation."""

    path: Path
    referenced_series: tuple[str, ...] | None = None
    """The series that a segmentation names; None: a NIfTI file."""

    @property
    def name(self) -> str:
        """The name of a NIfTI file without its suffix."""
        return nifti_stem(self.path)

    def differences(self, volume: VolumeFile, *, ignore_origin: bool = False) -> list[str]:
        """How the geometry of a NIfTI file differs from that of a volume, as phrases."""
        labels = read_nifti_geometry(self.path).to_standard()
        expected = volume.geometry().to_standard()
        return list_differences(labels, expected, ignore_origin=ignore_origin)

    def read(self, geometry: Geometry) -> Volume:
        """The labels on the voxels of a volume with this geometry, in the standard order."""
        if self.referenced_series is None:
            return read_nifti_labels(self.path).to_standard()
        return read_segmentation(self.path).to_labels(geometry).to_standard()

    def digest(self) -> str:
        """SHA-256 of its content."""
        return digest_files([self.path])


@dataclass(frozen=True)
class LabeledVolume:
    """A volume and its labels."""

    volume: VolumeFile
    labels: LabelFile


@dataclass(frozen=True)
class Pairing:
    """The result of pair_labels."""

    pairs: list[LabeledVolume]
    unlabeled: list[VolumeFile]
    failures: dict[str, str]
    """Labels without a volume, by their path, and why."""


def segmentation_file(header: SliceHeader) -> LabelFile:
    """The label file of a DICOM segmentation."""
    return LabelFile(header.path, header.referenced_series)


def pair_labels(
    volumes: Sequence[VolumeFile], labels: Sequence[LabelFile], *, ignore_origin: bool = False
) -> Pairing:
    """Find the volume of each label file.

    Args:
        volumes: The volumes.
        labels: The label files, at most one for each volume.
        ignore_origin: Accept NIfTI labels with another origin.

    Returns:
        The pairs, the volumes without labels, and the labels that fit no volume.
    """
    pairs: dict[str, LabeledVolume] = {}
    failures: dict[str, str] = {}
    for each in labels:
        try:
            volume = _find_volume(each, volumes, labels, ignore_origin=ignore_origin)
        except DataError as error:
            failures[str(each.path)] = str(error)
            continue
        other = pairs.setdefault(volume.label, LabeledVolume(volume, each)).labels
        if other != each:
            failures[str(each.path)] = (
                f"{other.path} and {each.path} are both labels of {volume.label}: give one of them."
            )
    unlabeled = [volume for volume in volumes if volume.label not in pairs]
    return Pairing(list(pairs.values()), unlabeled, failures)


def _find_volume(
    labels: LabelFile,
    volumes: Sequence[VolumeFile],
    all_labels: Sequence[LabelFile],
    *,
    ignore_origin: bool,
) -> VolumeFile:
    """The volume of a label file; DataError if there is none, or the geometries differ."""
    candidates = list(_candidates(labels, volumes, all_labels))
    if not candidates:
        what = "its series is not" if labels.referenced_series else "no volume of its name is"
        raise DataError(f"{labels.path} has no volume: {what} in the given folders.")
    if labels.referenced_series is not None:
        return candidates[0]
    reasons = {}
    for volume in candidates:
        try:
            differences = labels.differences(volume, ignore_origin=ignore_origin)
        except DataError as error:
            reasons[volume] = str(error)
            continue
        if not differences:
            return volume
        reasons[volume] = _geometry_error(labels, volume, differences)
    # A localizer in the folder of a patient is not what the labels were drawn on.
    raise DataError(reasons[max(candidates, key=lambda volume: len(volume.files))])


def _candidates(
    labels: LabelFile, volumes: Sequence[VolumeFile], all_labels: Sequence[LabelFile]
) -> Iterator[VolumeFile]:
    """The volumes that a label file may belong to, by the first rule that finds any."""
    if labels.referenced_series is not None:
        uids = labels.referenced_series
        yield from (each for each in volumes if each.series and each.series.uid in uids)
        return
    name = labels.name
    same_name = [volume for volume in volumes if volume.name == name]
    without_channel = [volume for volume in volumes if _CHANNEL.sub("", volume.name) == name]
    if same_name or without_channel:
        yield from same_name or without_channel
        return
    names = [each.name for each in all_labels if each.referenced_series is None]
    if _number_of(name) is not None and _has_unique_number(name, names):
        same_number = [each for each in volumes if _number_of(each.name) == _number_of(name)]
        if len({volume.name for volume in same_number}) == 1:
            yield from same_number
            return
    if len(names) == 1 and len({volume.name for volume in volumes}) == 1:
        yield from volumes


def _has_unique_number(name: str, names: Sequence[str]) -> bool:
    return sum(_number_of(other) == _number_of(name) for other in names) == 1


def _number_of(name: str) -> int | None:
    """The last number in a name."""
    match = _NUMBER.search(name)
    return int(match[0]) if match else None


def _geometry_error(labels: LabelFile, volume: VolumeFile, differences: Sequence[str]) -> str:
    is_only_origin = len(differences) == 1 and "its origin" in differences[0]
    remedy = (
        "export it again, or give --ignore-origin if its voxels are known to be those of the volume"
        if is_only_origin
        else "give the labels that were drawn on this volume"
    )
    return f"{labels.path} does not match {volume.label}: {', and '.join(differences)}; {remedy}."
