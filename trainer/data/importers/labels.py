"""The labels of volumes: NIfTI label files and DICOM segmentations, paired and checked.

A segmentation names its series. A NIfTI label file belongs to the volume of the same name, or of
the same name with nnU-Net's channel number (case_0000), or with the same number at its end
(label0001.nii.gz and PANCREAS_0001, as in NIH Pancreas-CT); of files with the same name, to the one
in the same folder below SOURCE. Whatever the names are, the geometries of both must coincide, and
labels that fit several volumes are an error.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contract.errors import DataError, first_line
from contract.imaging.dicom_files import SliceHeader
from contract.imaging.dicom_seg import read_segment_names, read_segmentation
from contract.imaging.nifti import nifti_stem, read_nifti_geometry, read_nifti_labels
from contract.imaging.volume import Geometry, Volume, list_differences
from contract.imaging.volume_files import VolumeFile, digest_files

_CHANNEL = re.compile(r"_\d{4}$")
_NUMBER = re.compile(r"\d+(?=\D*$)")


@dataclass(frozen=True)
class LabelFile:
    """A NIfTI label file or a DICOM segmentation."""

    path: Path
    header: SliceHeader | None = None
    """The header of a segmentation; None: a NIfTI file."""
    folder: str = ""
    """The folder of a NIfTI file below the folder that it was found in, with /."""

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
        if self.header is None:
            return read_nifti_labels(self.path).to_standard()
        return read_segmentation(self.path).to_labels(geometry).to_standard()

    def value_names(self) -> dict[int, str]:
        """The names of its segments by their value; none in a NIfTI file."""
        return read_segment_names(self.path) if self.header else {}

    def digest(self) -> str:
        """SHA-256 of its content; DataError if it cannot be read."""
        try:
            return digest_files([self.path])
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read: {first_line(error)}; check the disk and its "
                "permissions."
            ) from error


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
    """Labels without a volume and volumes with several labels, by their path, and why."""


def segmentation_file(header: SliceHeader) -> LabelFile:
    """The label file of a DICOM segmentation."""
    return LabelFile(header.path, header)


def pair_labels(
    volumes: Sequence[VolumeFile], labels: Sequence[LabelFile], *, ignore_origin: bool = False
) -> Pairing:
    """Find the volume of each label file.

    Args:
        volumes: The volumes.
        labels: The label files, at most one for each volume.
        ignore_origin: Accept NIfTI labels with another origin.

    Returns:
        The pairs, the volumes without labels, and the labels that fit no volume. A volume whose
        labels cannot be used is not one without labels.
    """
    labels_of: defaultdict[VolumeFile, list[LabelFile]] = defaultdict(list)
    failures: dict[str, str] = {}
    named: set[VolumeFile] = set()
    for each in labels:
        try:
            labels_of[_find_volume(each, volumes, labels, ignore_origin=ignore_origin)].append(each)
        except DataError as error:
            failures[str(each.path)] = str(error)
            named.update(_named_volumes(each, volumes, labels))
    for volume, files in labels_of.items():
        if len(files) > 1:
            listed = " and ".join(str(file.path) for file in files)
            failures[volume.label] = f"{listed} are labels of one {volume.label}: give one of them."
    pairs = [
        LabeledVolume(volume, files[0]) for volume, files in labels_of.items() if len(files) == 1
    ]
    unlabeled = [volume for volume in volumes if volume not in labels_of and volume not in named]
    return Pairing(pairs, unlabeled, failures)


def check_value_names(names: Iterable[tuple[str, Mapping[int, str]]]) -> None:
    """DataError if a value has different names in two files, or a name different values.

    names: the names of the values, by value, of each file or record.
    """
    name_of: dict[int, tuple[str, str]] = {}
    values_of: dict[str, tuple[set[int], str]] = {}
    for where, named in names:
        remedy = "give the segments of all files the same numbers and names."
        by_name: defaultdict[str, set[int]] = defaultdict(set)
        for value, name in named.items():
            other, other_place = name_of.setdefault(value, (name, where))
            if _plain(other) != _plain(name):
                raise DataError(
                    f"the label {value} is {other!r} in {other_place} and {name!r} in {where}: "
                    f"{remedy}"
                )
            by_name[_plain(name)].add(value)
        for name, values in by_name.items():
            others, other_place = values_of.setdefault(name, (values, where))
            if not values & others:
                raise DataError(
                    f"{named[min(values)]!r} has the label {min(others)} in {other_place} and "
                    f"{min(values)} in {where}: {remedy}"
                )


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\W_]+", name.casefold())).strip()


def _find_volume(
    labels: LabelFile,
    volumes: Sequence[VolumeFile],
    all_labels: Sequence[LabelFile],
    *,
    ignore_origin: bool,
) -> VolumeFile:
    """The volume of a label file; DataError if there is not exactly one that fits."""
    if labels.header is not None:
        return _find_series(labels, labels.header, volumes)
    candidates = _candidates(labels, volumes, all_labels)
    if not candidates:
        raise DataError(
            f"{labels.path} has no volume: no volume of its name is in the given folders."
        )
    fitting: list[VolumeFile] = []
    reasons = {}
    for volume in candidates:
        try:
            differences = labels.differences(volume, ignore_origin=ignore_origin)
        except DataError as error:
            reasons[volume] = str(error)
            continue
        if differences:
            reasons[volume] = _geometry_error(labels, volume, differences)
        else:
            fitting.append(volume)
    if not fitting:
        # A localizer in the folder of a patient is not what the labels were drawn on.
        raise DataError(reasons[max(candidates, key=lambda volume: len(volume.files))])
    return _only_one(labels, fitting, "a DICOM segmentation, which names its series, or ")


def _find_series(
    labels: LabelFile, header: SliceHeader, volumes: Sequence[VolumeFile]
) -> VolumeFile:
    """The series that a segmentation names, of the same patient."""
    candidates = [
        (volume, volume.series.headers[0])
        for volume in _referenced_volumes(header, volumes)
        if volume.series
    ]
    if not candidates:
        raise DataError(f"{labels.path} has no volume: its series is not in the given folders.")
    # Some programs that replace identifiers give the same UID to several patients.
    same_patient = [
        (volume, first)
        for volume, first in candidates
        if not first.patient_id or not header.patient_id or first.patient_id == header.patient_id
    ]
    if not same_patient:
        raise DataError(
            f"{labels.path} has another PatientID than its series {candidates[0][0].label}: give "
            "the segmentation of that patient."
        )
    same_study = [volume for volume, first in same_patient if first.study == header.study]
    return _only_one(labels, same_study or [volume for volume, _ in same_patient])


def _named_volumes(
    labels: LabelFile, volumes: Sequence[VolumeFile], all_labels: Sequence[LabelFile]
) -> list[VolumeFile]:
    """The volumes that a label file may belong to, whether it fits them or not."""
    if labels.header is not None:
        return _referenced_volumes(labels.header, volumes)
    return _candidates(labels, volumes, all_labels)


def _referenced_volumes(header: SliceHeader, volumes: Sequence[VolumeFile]) -> list[VolumeFile]:
    """The series that a segmentation names."""
    return [each for each in volumes if each.series and each.series.uid in header.referenced_series]


def _only_one(labels: LabelFile, fitting: Sequence[VolumeFile], remedy: str = "") -> VolumeFile:
    if len(fitting) > 1:
        listed = " and ".join(volume.label for volume in fitting[:3])
        raise DataError(
            f"{labels.path} fits {len(fitting)} volumes, such as {listed}: give {remedy}a SOURCE "
            "that contains only one of them."
        )
    return fitting[0]


def _candidates(
    labels: LabelFile, volumes: Sequence[VolumeFile], all_labels: Sequence[LabelFile]
) -> list[VolumeFile]:
    """The volumes that a NIfTI label file may belong to, by the first rule that finds any."""
    name = labels.name
    names = [each.name for each in all_labels if each.header is None]
    same_name = [volume for volume in volumes if volume.name == name]
    without_channel = [volume for volume in volumes if _CHANNEL.sub("", volume.name) == name]
    if same := same_name or without_channel:
        same_folder = [volume for volume in same if _is_same_folder(labels, volume)]
        # With several files of one name, the folders say what belongs together.
        return same_folder if same_folder or names.count(name) > 1 else same
    if _number_of(name) is not None and _has_unique_number(name, names):
        same_number = [each for each in volumes if _number_of(each.name) == _number_of(name)]
        if len({volume.name for volume in same_number}) == 1:
            return same_number
    is_only = len(names) == 1 and len({volume.name for volume in volumes}) == 1
    return list(volumes) if is_only else []


def _is_same_folder(labels: LabelFile, volume: VolumeFile) -> bool:
    """Whether both are in one folder below SOURCE and LABELS, or below a folder of these."""
    first = PurePosixPath(labels.folder).parts
    second = PurePosixPath(volume.path if volume.series else volume.path.rpartition("/")[0]).parts
    shared = min(len(first), len(second))
    return first == second or (shared > 0 and first[-shared:] == second[-shared:])


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
