"""DICOM series of single-frame slices, as CT, MR and PET scanners export them.

A series is sorted by the position of its slices along their normal (DICOM PS3.3, C.7.6.2), never by
file name or instance number. Patient names and birth dates are compared with other names, so that
these do not contain them, and are not part of a Volume. pydicom is imported by the functions,
because a light client does not have it.
"""

import hashlib
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError, first_line
from contract.imaging.volume import Geometry, Volume, to_integers

log = logging.getLogger(__name__)

SEGMENTATION = "SEG"
_IMAGE_MODALITIES = ("CT", "MR", "PT")
_MAGIC, _MAGIC_OFFSET = b"DICM", 128
_THREADS = 4
_HEADER_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "ImageType",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientIdentityRemoved",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "ReferencedSeriesSequence",
]
# The package that decodes a transfer syntax, by the end of its UID after 1.2.840.10008.1.2.4.
_DECODERS = {
    "50": "pillow",
    "51": "python-gdcm",
    "57": "python-gdcm",
    "70": "python-gdcm",
    "80": "pyjpegls",
    "81": "pyjpegls",
    "90": "pylibjpeg and pylibjpeg-openjpeg",
    "91": "pylibjpeg and pylibjpeg-openjpeg",
    "201": "pylibjpeg and pylibjpeg-openjpeg",
    "202": "pylibjpeg and pylibjpeg-openjpeg",
    "203": "pylibjpeg and pylibjpeg-openjpeg",
}
# A word of a name that identifies no person.
_PSEUDONYM = re.compile(
    r"((anon(ym\w*)?|pseudo(nym\w*)?|de-?ident\w*|patient|case|phantom|unknown|none)[-.]?\d*|\d+)",
    re.IGNORECASE,
)
# In mm, and as a fraction of the distance between slices: positions are rounded in the files.
_POSITION_TOLERANCE_MM, _POSITION_TOLERANCE = 0.02, 0.01
# What padding becomes in CT: the lowest value of most scanners.
_AIR_HU = np.int32(-1024)


@dataclass(frozen=True)
class SliceHeader:
    """The header of a file that is part of a series; absent values are None or empty."""

    path: Path
    modality: str
    image_type: tuple[str, ...]
    instance: str
    study: str
    series: str
    patient_id: str
    identifiers: tuple[str, ...]
    """Words of the patient's name, and the birth date: no output may contain them."""
    position: tuple[float, ...] | None
    """x, y, z in mm of the center of the first pixel."""
    row_direction: tuple[float, ...] | None
    """Unit vector along which the columns of a row follow each other."""
    column_direction: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    """Distance between rows and between columns in mm."""
    thickness: float | None
    """SpacingBetweenSlices, else SliceThickness, in mm."""
    rows: int
    columns: int
    samples: int
    frames: int
    referenced_series: tuple[str, ...]
    """Series that a segmentation refers to."""


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series, in any order; made by group_series."""

    headers: tuple[SliceHeader, ...]

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.headers[0].series

    @property
    def folder(self) -> Path:
        """The folder of its first file."""
        return min(header.path for header in self.headers).parent

    @property
    def name(self) -> str:
        """What an error calls it."""
        first = min(header.path for header in self.headers)
        return str(first if len(self.headers) == 1 else first.parent)

    @cached_property
    def slices(self) -> list[SliceHeader]:
        """Its slices, sorted along their normal; copies of a slice are dropped with a message.

        Raises:
            DataError: They are not CT, MR or PET slices, differ in size or orientation, or do not
                have equal distances.
        """
        for header in self.headers:
            _check_slice(header)
        _check_equal(self)
        normal = _normal(self.headers[0])
        ordered = sorted(self.headers, key=lambda header: (_height(header, normal), header.path))
        ordered = _drop_copies(ordered, normal, self.name)
        _check_distances(ordered, normal, self.name)
        return ordered

    def geometry(self) -> Geometry:
        """The size and position of the volume of its slices; raises as slices does."""
        first, last = self.slices[0], self.slices[-1]
        affine = np.eye(4)
        if len(self.slices) > 1:
            step = (_array(last.position) - _array(first.position)) / (len(self.slices) - 1)
        else:
            step = _normal(first) * _thickness(first)
        row_spacing, column_spacing = _array(first.pixel_spacing)
        affine[:3, 0] = step
        affine[:3, 1] = _array(first.column_direction) * row_spacing
        affine[:3, 2] = _array(first.row_direction) * column_spacing
        affine[:3, 3] = _array(first.position)
        return Geometry((len(self.slices), first.rows, first.columns), affine)

    def read(self) -> Volume:
        """Decode its slices: intensities after the rescale slope and intercept (CT: HU).

        Padding becomes -1024 HU in CT, and else the lowest intensity of the slice.

        Raises:
            DataError: As slices does; or a file is damaged, its compression needs a package that
                is not installed, or its intensities have no known unit.
        """
        geometry = self.geometry()
        with _silence_warnings(), ThreadPoolExecutor(_THREADS, "dicom") as pool:
            results = list(pool.map(lambda header: _read_intensities(header.path), self.slices))
        slices, is_transformed = zip(*results, strict=True)
        _check_all_transformed(self, is_transformed)
        return Volume(to_integers(np.stack(slices), self.name), geometry.affine)


def is_dicom(path: Path) -> bool:
    """Whether a file has the prefix of DICOM's file format (PS3.10, 7.1)."""
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_OFFSET + len(_MAGIC))[_MAGIC_OFFSET:] == _MAGIC
    except OSError:
        return False


def read_header(path: Path) -> SliceHeader:
    """The header of a DICOM file; DataError naming the file if it is not one."""
    with _silence_warnings():
        dataset = _read_dataset(path, specific_tags=_HEADER_TAGS, stop_before_pixels=True)
        if not dataset.get("SOPClassUID"):
            raise DataError(f"{path} is not a DICOM image: it has no SOPClassUID; remove it.")
        try:
            return _parse_header(path, dataset)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"the header of {path} is damaged: {first_line(error)}; export it again."
            ) from error


def group_series(headers: Iterable[SliceHeader]) -> list[DicomSeries]:
    """The series of slices by SeriesInstanceUID, sorted by the path of their first file."""
    grouped: defaultdict[tuple[str, str], list[SliceHeader]] = defaultdict(list)
    for header in headers:
        # Without a UID, nothing says that two files belong together. Some programs that replace
        # identifiers give the same UID to several patients.
        grouped[header.series or str(header.path), header.patient_id].append(header)
    series = [DicomSeries(tuple(members)) for members in grouped.values()]
    return sorted(series, key=lambda each: min(header.path for header in each.headers))


def read_pixels(path: Path) -> tuple[Any, NDArray]:
    """The dataset of a file and its stored pixels, decoded; DataError naming the file."""
    with _silence_warnings():
        return _decode_pixels(path)


def digest_files(paths: Sequence[Path]) -> str:
    """SHA-256, in hex, of the content of files, whatever their names and order."""

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return hashlib.sha256("".join(sorted(map(digest, paths))).encode()).hexdigest()


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Suppress pydicom's warnings about padding and values that other readers accept, too.

    Filters of warnings belong to the process, so this is done once around all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode_pixels(path: Path) -> tuple[Any, NDArray]:
    dataset = _read_dataset(path)
    try:
        return dataset, dataset.pixel_array
    except Exception as error:  # the decoders of pydicom raise errors of every type
        raise DataError(_decoding_error(path, dataset, error)) from error


def _read_dataset(path: Path, **options: Any) -> Any:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        # Some exports have no prefix, and a file named .dcm is worth a try.
        return pydicom.dcmread(path, force=path.suffix.lower() == ".dcm", **options)
    except InvalidDicomError as error:
        raise DataError(f"{path} is not a DICOM file: remove it, or export it again.") from error
    except Exception as error:  # pydicom raises errors of every type for damaged files
        raise DataError(
            f"{path} cannot be read as DICOM: {first_line(error)}; export it again."
        ) from error


def _parse_header(path: Path, dataset: Any) -> SliceHeader:
    orientation = _numbers(dataset.get("ImageOrientationPatient"), 6)
    name = str(dataset.get("PatientName") or "")
    patient_id = str(dataset.get("PatientID") or "")
    # Public collections repeat the pseudonym of the patient as the name.
    words = [word for word in re.split(r"[\^=\s_]+", name) if word]
    is_pseudonym = _letters(name) == _letters(patient_id) or all(map(_PSEUDONYM.fullmatch, words))
    if is_pseudonym or dataset.get("PatientIdentityRemoved") == "YES":
        words = []
    birth_date = re.sub(r"\D", "", str(dataset.get("PatientBirthDate") or ""))
    referenced = dataset.get("ReferencedSeriesSequence") or []
    spacing = dataset.get("SpacingBetweenSlices") or dataset.get("SliceThickness")
    image_type = dataset.get("ImageType") or []
    return SliceHeader(
        path=path,
        modality=str(dataset.get("Modality") or ""),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(map(str, image_type)),
        instance=str(dataset.get("SOPInstanceUID") or ""),
        study=str(dataset.get("StudyInstanceUID") or ""),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        patient_id=patient_id,
        identifiers=tuple(word for word in [*words, birth_date] if len(_letters(word)) > 1),
        position=_numbers(dataset.get("ImagePositionPatient"), 3),
        row_direction=orientation and orientation[:3],
        column_direction=orientation and orientation[3:],
        pixel_spacing=_numbers(dataset.get("PixelSpacing"), 2),
        thickness=abs(float(spacing)) if spacing else None,
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        frames=int(dataset.get("NumberOfFrames") or 1),
        referenced_series=tuple(str(item.get("SeriesInstanceUID") or "") for item in referenced),
    )


def _letters(name: str) -> str:
    """The letters and digits of a name."""
    return re.sub(r"[\W_]", "", name).lower()


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    """The values of an element; None if it is absent."""
    if not values:
        return None
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{list(values)} are not {count} numbers")
    return numbers


def _check_slice(header: SliceHeader) -> None:
    """DataError if a file is not a single slice with a position in the patient."""
    path = header.path
    if header.modality not in _IMAGE_MODALITIES:
        hint = ": convert its contours to DICOM SEG" if header.modality == "RTSTRUCT" else ""
        raise DataError(
            f"{path} has the modality {header.modality or 'unknown'}, not CT, MR or PT (PET){hint}."
        )
    if header.frames > 1:
        raise DataError(
            f"{path} contains {header.frames} frames: export the series as one file per slice."
        )
    if header.samples != 1:
        raise DataError(f"{path} is in color: a slice has one sample per pixel.")
    if "MOSAIC" in header.image_type:
        raise DataError(f"{path} is a mosaic of slices: export the series as one file per slice.")
    if not header.rows or not header.columns:
        raise DataError(f"{path} has no pixels: export it again.")
    elements = {
        "ImagePositionPatient": header.position,
        "ImageOrientationPatient": header.row_direction,
        "PixelSpacing": header.pixel_spacing,
    }
    if missing := [name for name, value in elements.items() if value is None]:
        raise DataError(
            f"{path} has no {' and no '.join(missing)}, so its place in the patient is unknown: "
            "export the series again."
        )
    _check_numbers(header)


def _check_numbers(header: SliceHeader) -> None:
    row, column = _array(header.row_direction), _array(header.column_direction)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if np.abs(np.array(lengths) - 1).max() > 0.01 or abs(row @ column) > 0.01:
        raise DataError(
            f"the ImageOrientationPatient of {header.path} is not a pair of perpendicular unit "
            "vectors: export the series again."
        )
    if min(_array(header.pixel_spacing)) <= 0:
        raise DataError(f"the PixelSpacing of {header.path} is not positive: export it again.")


def _check_equal(series: DicomSeries) -> None:
    """DataError if the slices of a series differ in size, pixel spacing or orientation."""
    first = series.headers[0]
    for header in series.headers[1:]:
        differences = []
        if (header.rows, header.columns) != (first.rows, first.columns):
            differences.append(
                f"{header.columns} x {header.rows} and {first.columns} x {first.rows} pixels"
            )
        if not np.allclose(_array(header.pixel_spacing), _array(first.pixel_spacing), rtol=1e-3):
            differences.append("several pixel spacings")
        if not (
            np.allclose(_array(header.row_direction), _array(first.row_direction), atol=1e-3)
            and np.allclose(
                _array(header.column_direction), _array(first.column_direction), atol=1e-3
            )
        ):
            differences.append("several orientations")
        if differences:
            raise DataError(
                f"the slices of {series.name} have {' and '.join(differences)} (a localizer?), "
                f"such as {first.path.name} and {header.path.name}: give one volume per series."
            )


def _drop_copies(
    ordered: Sequence[SliceHeader], normal: NDArray[np.float64], name: str
) -> list[SliceHeader]:
    """The slices without those that have the same position and pixels as the one before."""
    kept: list[SliceHeader] = []
    copies: list[SliceHeader] = []
    for header in ordered:
        is_same_place = kept and np.allclose(
            _array(header.position), _array(kept[-1].position), atol=_POSITION_TOLERANCE_MM / 2
        )
        if not is_same_place:
            kept.append(header)
        elif _has_equal_pixels(header, kept[-1]):
            copies.append(header)
        else:
            raise DataError(
                f"{name} has different slices at the same position, such as "
                f"{kept[-1].path.name} and {header.path.name}: separate its acquisitions "
                "(phases, echoes or time points)."
            )
    if copies:
        log.warning(
            "%s contains %d copies of slices, which are ignored, such as %s",
            name,
            len(copies),
            copies[0].path.name,
        )
    return kept


def _has_equal_pixels(header: SliceHeader, other: SliceHeader) -> bool:
    first, second = (read_pixels(each.path)[1] for each in (header, other))
    return np.array_equal(first, second)


def _check_distances(
    ordered: Sequence[SliceHeader], normal: NDArray[np.float64], name: str
) -> None:
    """DataError if slices are missing, or are not placed at equal distances on one line."""
    if len(ordered) < 3:
        return
    heights = np.array([_height(header, normal) for header in ordered])
    distances = np.diff(heights)
    usual = _usual_distance(distances)
    tolerance = max(_POSITION_TOLERANCE_MM, _POSITION_TOLERANCE * usual)
    widest = int(np.argmax(distances))
    if distances[widest] > 1.5 * usual:
        raise DataError(
            f"{name} has a gap of {distances[widest]:g} mm between {ordered[widest].path.name} and "
            f"{ordered[widest + 1].path.name}, where its slices are {usual:g} mm apart: add the "
            "missing slices."
        )
    if np.abs(distances - usual).max() > tolerance:
        raise DataError(
            f"the slices of {name} are {distances.min():g} to {distances.max():g} mm apart: "
            "resample the series to equal distances."
        )
    positions = np.array([header.position for header in ordered])
    line = np.linspace(positions[0], positions[-1], len(positions))
    if np.abs(positions - line).max() > max(tolerance, min(_array(ordered[0].pixel_spacing)) / 4):
        raise DataError(
            f"the slices of {name} are shifted against each other: resample the series, or export "
            "it again."
        )


def _read_intensities(path: Path) -> tuple[NDArray, bool]:
    """The values [rows, columns] of a slice, and whether it has a modality transform."""
    dataset, pixels = _decode_pixels(path)
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise DataError(f"{path} contains pixels of shape {pixels.shape}: export it again.")
    values = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    padding = _find_padding(dataset, values)
    is_transformed = _has_modality_transform(path, dataset)
    if is_transformed:
        values = _apply_modality_transform(path, dataset, values)
    if padding.any():
        lowest = values[~padding].min(initial=values.max())
        values = np.where(padding, _AIR_HU if dataset.Modality == "CT" else lowest, values)
    return _shrink(values), is_transformed


def _find_padding(dataset: Any, pixels: NDArray) -> NDArray[np.bool_]:
    """Which stored pixels are padding (PS3.3, C.7.5.1.1.2): outside of the range of the others."""
    limits = [dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not isinstance(limits[0], int):
        return np.zeros(pixels.shape, bool)
    # Some programs write the value as unsigned, although the pixels are signed.
    ends = np.array([each for each in limits if isinstance(each, int)]).astype(pixels.dtype)
    padding = (pixels >= ends.min()) & (pixels <= ends.max())
    others = pixels[~padding]
    is_between = others.size and others.min() < ends.min() and others.max() > ends.max()
    return padding & (not is_between)


def _shrink(values: NDArray) -> NDArray[np.int16 | np.int32 | np.float32]:
    """Integers in the smallest type, which is exact for Hounsfield units; else float32."""
    if values.dtype.kind == "f" and not np.array_equal(np.rint(values), values):
        return values.astype(np.float32)
    low, high = values.min(), values.max()
    if low >= -(2**15) and high < 2**15:
        return values.astype(np.int16)
    is_integer = low >= -(2**31) and high < 2**31
    return values.astype(np.int32 if is_integer else np.float32)


def _has_modality_transform(path: Path, dataset: Any) -> bool:
    """Whether a slice is rescaled; DataError if its Hounsfield units are unknown without it."""
    if dataset.get("ModalityLUTSequence"):
        return True
    names = ("RescaleSlope", "RescaleIntercept")
    present = [name for name in names if dataset.get(name) not in (None, "")]
    if len(present) == 1:
        (missing,) = set(names) - set(present)
        raise DataError(f"{path} has a {present[0]}, but no {missing}: export it again.")
    if not present and dataset.get("Modality") == "CT":
        raise DataError(
            f"{path} is CT and has no RescaleSlope and no RescaleIntercept, so its Hounsfield "
            "units are unknown: export it again."
        )
    return bool(present)


def _apply_modality_transform(path: Path, dataset: Any, pixels: NDArray) -> NDArray:
    from pydicom.pixels.processing import apply_modality_lut

    try:
        return apply_modality_lut(pixels, dataset)
    except Exception as error:  # a damaged element is found when its value is used
        raise DataError(
            f"{path} cannot be rescaled: {first_line(error)}; export it again."
        ) from error


def _usual_distance(distances: NDArray[np.float64]) -> float:
    """The distance between slices, of which those around missing slices are multiples."""
    multiples = distances / distances.min()
    is_gap = np.abs(multiples - np.rint(multiples)).max() <= _POSITION_TOLERANCE * multiples.max()
    return float(distances.min() if is_gap else np.median(distances))


def _check_all_transformed(series: DicomSeries, is_transformed: Sequence[bool]) -> None:
    """DataError if only some slices have a modality transform."""
    if len(set(is_transformed)) > 1:
        other = series.slices[is_transformed.index(True)].path
        raise DataError(
            f"only some slices of {series.name} have a RescaleSlope, such as {other.name}: export "
            "the series again."
        )


def _decoding_error(path: Path, dataset: Any, error: Exception) -> str:
    meta = getattr(dataset, "file_meta", None)
    syntax = getattr(meta, "TransferSyntaxUID", None)
    reason = f"{path} cannot be decoded"
    if "PixelData" not in dataset:
        return f"{path} has no pixels: export it again."
    if syntax is None:
        return f"{reason}: it has no TransferSyntaxUID; export it again."
    package = _DECODERS.get(syntax.removeprefix("1.2.840.10008.1.2.4."))
    is_unsupported = any(
        text in str(error) for text in ("missing dependencies", "does not support", "12-bit")
    )
    if package and is_unsupported:
        return (
            f"{reason}: it is compressed with {syntax.name}, which needs {package}: pip install "
            f"{package.replace(' and ', ' ')}."
        )
    return f"{reason} ({syntax.name}): {first_line(error)}; export it again."


def _array(values: tuple[float, ...] | None) -> NDArray[np.float64]:
    """The values of an element that _check_slice has found."""
    assert values is not None
    return np.array(values)


def _normal(header: SliceHeader) -> NDArray[np.float64]:
    """The unit normal of a slice."""
    normal = np.cross(_array(header.row_direction), _array(header.column_direction))
    return normal / np.linalg.norm(normal)


def _height(header: SliceHeader, normal: NDArray[np.float64]) -> float:
    """The position of a slice along its normal in mm."""
    return float(_array(header.position) @ normal)


def _thickness(header: SliceHeader) -> float:
    if header.thickness is None:
        raise DataError(
            f"{header.path} is a single slice without SpacingBetweenSlices and SliceThickness, so "
            "its volume is unknown: export the series again."
        )
    return header.thickness
