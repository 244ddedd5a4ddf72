"""The volumes in files and folders: DICOM series and NIfTI files, with their names.

The import of a dataset and prediction find, name and read volumes with these functions, so that a
bundle predicts the voxels that it was trained on.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import DataError
from contract.imaging.dicom import (
    SEGMENTATION,
    DicomSeries,
    SliceHeader,
    digest_files,
    group_series,
    is_dicom,
    read_header,
)
from contract.imaging.file_names import is_hidden, is_image_file
from contract.imaging.nifti import is_nifti, nifti_stem, read_nifti, read_nifti_geometry
from contract.imaging.volume import Geometry, Volume
from contract.progress import ProgressCallback, no_progress

log = logging.getLogger(__name__)

# Modalities of files that accompany a series and are not read.
_OTHER_OBJECTS = {"RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "ECG"}
# The list of the files of a CD (PS3.10, 8.6).
_DIRECTORY = "DICOMDIR"


@dataclass(frozen=True)
class VolumeFile:
    """A volume that can be read: a NIfTI file, or a DICOM series."""

    name: str
    """The file's name without suffix; of a series, the name of the patient's folder."""
    path: str
    """Its place below the folder that it was found in, with /: what a regular expression for the
    patient is applied to."""
    nifti: Path | None = None
    series: DicomSeries | None = None

    @property
    def label(self) -> str:
        """What an error calls it."""
        return self.series.name if self.series else str(self.nifti)

    @property
    def files(self) -> list[Path]:
        """Its files."""
        if self.series:
            return [header.path for header in self.series.headers]
        assert self.nifti is not None
        return [self.nifti]

    def geometry(self) -> Geometry:
        """Its size and position, from headers alone; DataError naming the file."""
        if self.series:
            return self.series.geometry()
        assert self.nifti is not None
        return read_nifti_geometry(self.nifti)

    def read(self) -> Volume:
        """Its intensities in the order of the file; DataError naming the file."""
        if self.series:
            return self.series.read()
        assert self.nifti is not None
        return read_nifti(self.nifti)

    def digest(self) -> str:
        """SHA-256 of the content of its files."""
        return digest_files(self.files)


@dataclass(frozen=True)
class VolumeFolder:
    """What a file or a folder contains."""

    volumes: list[VolumeFile]
    segmentations: list[SliceHeader]
    """The DICOM segmentations."""


def contains_volumes(source: str) -> bool:
    """Whether a user's INPUT is a NIfTI file, a DICOM file or a local folder of such files.

    Raises DataError if a folder contains volumes and image files.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return is_nifti(source) or (path.is_file() and is_dicom(path))
    volume: Path | None = None
    image: Path | None = None
    for file in iterate_visible_files(path):
        if is_image_file(file.name):
            image = image or file
        elif volume is None and (is_nifti(file.name) or is_dicom(file)):
            volume = file
        if volume and image:
            raise DataError(
                f"{source} contains volumes, such as {volume}, and image files, such as {image}: "
                "name the folder of one of them."
            )
    return volume is not None


def find_volumes(source: Path, on_progress: ProgressCallback = no_progress) -> VolumeFolder:
    """The volumes and segmentations in a file or below a folder.

    Args:
        source: A NIfTI file, a DICOM file or a folder.
        on_progress: Called after the header of each file.

    Raises:
        DataError: There is no such file, or a file has a damaged header.
    """
    if not source.exists():
        raise DataError(f"there is no file or folder {source}.")
    files = sorted(iterate_visible_files(source)) if source.is_dir() else [source]
    volumes: list[VolumeFile] = []
    headers: list[SliceHeader] = []
    ignored: list[Path] = []
    for done, file in enumerate(files, start=1):
        if is_nifti(file.name):
            volumes.append(VolumeFile(nifti_stem(file), _relative(file, source), nifti=file))
        elif file.name.upper() == _DIRECTORY and file != source:
            ignored.append(file)
        elif file == source or file.suffix.lower() == ".dcm" or is_dicom(file):
            header = _read_image_header(file, is_named=file == source)
            headers += [header] if header else []
            ignored += [] if header else [file]
        else:
            ignored.append(file)
        on_progress(done, len(files), "")
    if ignored:
        log.info("%d files in %s are not volumes and are ignored", len(ignored), source)
    slices = [header for header in headers if header.modality != SEGMENTATION]
    segmentations = [header for header in headers if header.modality == SEGMENTATION]
    return VolumeFolder([*volumes, *_name_series(slices, source)], segmentations)


def iterate_visible_files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(parent, name) for name in sorted(names) if not is_hidden(name))


def _read_image_header(file: Path, is_named: bool) -> SliceHeader | None:
    """The header of a slice or segmentation; None for another object, such as a report.

    is_named: the user gave this very file, so that it is never ignored.
    """
    try:
        header = read_header(file)
    except DataError:
        if is_named:
            raise
        log.warning("%s is not a valid DICOM image and is ignored", file)
        return None
    is_other = header.modality in _OTHER_OBJECTS or not header.rows
    return None if is_other and not is_named else header


def _name_series(headers: Sequence[SliceHeader], source: Path) -> list[VolumeFile]:
    """Series with their names: the first folder below the source that they are in.

    If all of them belong to one study, or are directly in the source, the source itself is the
    patient's folder. A single file has its own name.
    """
    if source.is_file():
        (series,) = group_series(headers) or (None,)
        return [VolumeFile(source.stem, source.name, series=series)] if series else []
    is_one_study = len({header.study for header in headers}) == 1
    own_name = source.resolve().name
    named = []
    for series in group_series(headers):
        below = series.folder.relative_to(source).parts
        is_own_folder = is_one_study or not below
        name = own_name if is_own_folder else below[0]
        path = "/".join((own_name, *below) if is_own_folder else below)
        named.append(VolumeFile(name, path, series=series))
    return named


def _relative(file: Path, source: Path) -> str:
    return file.relative_to(source).as_posix() if source.is_dir() else file.name
