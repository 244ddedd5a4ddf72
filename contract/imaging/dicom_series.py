"""DICOM series of single-frame slices, as CT, MR and PET scanners export them.

A series is sorted by the position of its slices along their normal (DICOM PS3.3, C.7.6.2), never by
file name or instance number.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from contract.imaging.dicom_files import (
    SliceHeader,
    read_intensities,
    read_pixels,
    silence_warnings,
)
from contract.imaging.volume import Geometry, Volume, to_integers

log = logging.getLogger(__name__)

_IMAGE_MODALITIES = ("CT", "MR", "PT")
_THREADS = 4
# In mm, and as a fraction of the distance between slices: positions are rounded in the files.
_POSITION_TOLERANCE_MM, _POSITION_TOLERANCE = 0.02, 0.01


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
        with silence_warnings(), ThreadPoolExecutor(_THREADS, "dicom") as pool:
            results = list(pool.map(lambda header: read_intensities(header.path), self.slices))
        slices, is_transformed = zip(*results, strict=True)
        _check_all_transformed(self, is_transformed)
        return Volume(to_integers(np.stack(slices), self.name), geometry.affine)


def group_series(headers: Iterable[SliceHeader]) -> list[DicomSeries]:
    """The series of slices by SeriesInstanceUID, sorted by the path of their first file."""
    grouped: defaultdict[tuple[str, str], list[SliceHeader]] = defaultdict(list)
    for header in headers:
        # Without a UID, nothing says that two files belong together. Some programs that replace
        # identifiers give the same UID to several patients.
        grouped[header.series or str(header.path), header.patient_id].append(header)
    series = [DicomSeries(tuple(members)) for members in grouped.values()]
    return sorted(series, key=lambda each: min(header.path for header in each.headers))


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
