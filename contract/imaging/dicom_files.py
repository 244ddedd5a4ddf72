"""A file of DICOM: the elements of its header that a series needs, its pixels and intensities.

Patient names and birth dates are compared with other names, so that these do not contain them, and
are not part of a Volume. pydicom is imported by the functions, because a light client does not have
it.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError, first_line

SEGMENTATION = "SEG"
_MAGIC, _MAGIC_OFFSET = b"DICM", 128
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


def is_dicom(path: Path) -> bool:
    """Whether a file has the prefix of DICOM's file format (PS3.10, 7.1)."""
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_OFFSET + len(_MAGIC))[_MAGIC_OFFSET:] == _MAGIC
    except OSError:
        return False


def read_header(path: Path) -> SliceHeader:
    """The header of a DICOM file; DataError naming the file if it is not one."""
    with silence_warnings():
        dataset = _read_dataset(path, specific_tags=_HEADER_TAGS, stop_before_pixels=True)
        if not dataset.get("SOPClassUID"):
            raise DataError(f"{path} is not a DICOM image: it has no SOPClassUID; remove it.")
        try:
            return _parse_header(path, dataset)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"the header of {path} is damaged: {first_line(error)}; export it again."
            ) from error


def read_pixels(path: Path) -> tuple[Any, NDArray]:
    """The dataset of a file and its stored pixels, decoded; DataError naming the file."""
    with silence_warnings():
        return _decode_pixels(path)


def read_intensities(path: Path) -> tuple[NDArray, bool]:
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


@contextmanager
def silence_warnings() -> Iterator[None]:
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
