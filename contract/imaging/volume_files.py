"""The volumes in files and folders: DICOM series and NIfTI files, with their names.

The import of a dataset and prediction find, name and read volumes with these functions, so that a
bundle predicts the voxels that it was trained on.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from contract.errors import DataError, first_line
from contract.imaging.dicom_files import SEGMENTATION, SliceHeader, is_dicom, read_header
from contract.imaging.dicom_series import DicomSeries, group_series
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
    shares_folder: bool = False
    """Whether its folder contains other series."""
    damaged: Path | None = None
    """A DICOM file of its folder that cannot be read, and may be one of its slices."""

    @property
    def label(self) -> str:
        """What an error calls it: its file, or the folder that only this series has."""
        if self.series and not self.shares_folder:
            return self.series.name
        return str(min(self.files))

    @property
    def files(self) -> list[Path]:
        """Its files."""
        if self.series:
            return [header.path for header in self.series.headers]
        assert self.nifti is not None
        return [self.nifti]

    def geometry(self) -> Geometry:
        """Its size and position, from headers alone; DataError naming the file."""
        self._check_complete()
        if self.series:
            return self.series.geometry()
        assert self.nifti is not None
        return read_nifti_geometry(self.nifti)

    def read(self) -> Volume:
        """Its intensities in the order of the file; DataError naming the file."""
        self._check_complete()
        with self._translate_errors():
            if self.series:
                return self.series.read()
            assert self.nifti is not None
            return read_nifti(self.nifti)

    def digest(self) -> str:
        """SHA-256 of the content of its files; DataError if one of them cannot be read."""
        with self._translate_errors():
            return digest_files(self.files)

    def _check_complete(self) -> None:
        if self.damaged:
            raise DataError(
                f"{self.damaged} cannot be read and may be a slice of {self.label}: replace it, or "
                "remove it if it is none."
            )

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Values of headers that pydicom and NumPy cannot process have errors of every type."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self.label} cannot be read: {first_line(error)}; check the disk and its "
                "permissions."
            ) from error
        except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError) as error:
            raise DataError(
                f"the intensities of {self.label} cannot be computed: {first_line(error)}; export "
                "it again."
            ) from error


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
        raise DataError(f"there is no file or folder {source}: give one that exists.")
    files = sorted(iterate_visible_files(source)) if source.is_dir() else [source]
    contents = _FoundFiles(source)
    for done, file in enumerate(files, start=1):
        contents.add(file)
        on_progress(done, len(files), "")
    if contents.ignored:
        log.info("%d files in %s are not volumes and are ignored", contents.ignored, source)
    slices = [header for header in contents.headers if header.modality != SEGMENTATION]
    segmentations = [header for header in contents.headers if header.modality == SEGMENTATION]
    return VolumeFolder(
        [*contents.volumes, *_name_series(slices, source, contents.damaged)], segmentations
    )


@dataclass
class _FoundFiles:
    """The files of a source by their kind."""

    source: Path
    volumes: list[VolumeFile] = field(default_factory=list)
    """NIfTI files."""
    headers: list[SliceHeader] = field(default_factory=list)
    """The headers of slices and segmentations."""
    damaged: list[Path] = field(default_factory=list)
    """DICOM files that cannot be read."""
    ignored: int = 0
    """How many others there are."""

    def add(self, file: Path) -> None:
        """Read the header of a file; DataError if the source is this very file, and damaged."""
        if is_nifti(file.name):
            volume = VolumeFile(nifti_stem(file), _relative(file, self.source), nifti=file)
            self.volumes.append(volume)
        elif file == self.source:
            self.headers.append(read_header(file))
        elif file.name.upper() != _DIRECTORY and (file.suffix.lower() == ".dcm" or is_dicom(file)):
            self._add_dicom(file)
        else:
            self.ignored += 1

    def _add_dicom(self, file: Path) -> None:
        try:
            header = read_header(file)
        except DataError as error:
            log.warning("%s", error)
            self.damaged.append(file)
            return
        if header.modality in _OTHER_OBJECTS or not header.rows:
            self.ignored += 1
        else:
            self.headers.append(header)


def iterate_visible_files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(parent, name) for name in sorted(names) if not is_hidden(name))


def digest_files(paths: Sequence[Path]) -> str:
    """SHA-256, in hex, of the content of files, whatever their names and order."""

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return hashlib.sha256("".join(sorted(map(digest, paths))).encode()).hexdigest()


def _name_series(
    headers: Sequence[SliceHeader], source: Path, damaged: Sequence[Path]
) -> list[VolumeFile]:
    """Series with their names: the first folder below the source that they are in.

    If all of them belong to one study, or are directly in the source, the source itself is the
    patient's folder. A single file has its own name. A damaged file is one of the slices of its
    folder.
    """
    if source.is_file():
        (series,) = group_series(headers) or (None,)
        return [VolumeFile(source.stem, source.name, series=series)] if series else []
    is_one_study = _is_one_study(headers, source, damaged)
    own_name = source.resolve().name
    grouped = group_series(headers)
    folders = Counter(series.folder for series in grouped)
    damaged_files = {path.parent: path for path in damaged}
    named = []
    for series in grouped:
        below = series.folder.relative_to(source).parts
        is_own_folder = is_one_study or not below
        named.append(
            VolumeFile(
                own_name if is_own_folder else below[0],
                "/".join((own_name, *below) if is_own_folder else below),
                series=series,
                shares_folder=folders[series.folder] > 1,
                damaged=damaged_files.get(series.folder),
            )
        )
    return named


def _is_one_study(headers: Sequence[SliceHeader], source: Path, damaged: Sequence[Path]) -> bool:
    """Whether all series are of one study of one patient.

    Some programs that replace identifiers leave the same or no identifiers in all files: without
    a PatientID, several folders are several patients. So are the folders of damaged files.
    """
    studies = {(header.study, header.patient_id) for header in headers}
    if len(studies) != 1:
        return False
    ((study, patient_id),) = studies
    paths = [*damaged, *(header.path for header in headers)]
    folders = {path.relative_to(source).parts[0] for path in paths if path.parent != source}
    known = {header.path.relative_to(source).parts[0] for header in headers}
    return len(folders) < 2 or bool(study and patient_id and folders <= known)


def _relative(file: Path, source: Path) -> str:
    return file.relative_to(source).as_posix() if source.is_dir() else file.name
