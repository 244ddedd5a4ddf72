"""DICOM segmentations (SEG, DICOM PS3.3, A.51): read as labels, written as predictions.

A segmentation stores only the slices that have foreground, each with its position, and refers to
the series that it was drawn on. It is read frame by frame into the geometry of that series. It is
written with highdicom, which the function imports, because a light client does not have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError, first_line
from contract.imaging.dicom_files import SliceHeader, read_pixels
from contract.imaging.dicom_series import DicomSeries
from contract.imaging.volume import Geometry, Volume
from contract.plurals import pluralize

# Of a voxel: how far a pixel of a frame may be from the center of a voxel of the series.
_MAX_DISPLACEMENT = 0.25
# Of a voxel: how far the step from a pixel to the next may be from the step to the next voxel.
_MAX_STEP_ERROR = 0.01
# The longest code of PS3.5, 6.2 (SH).
_MAX_CODE = 16
# Elements of the source that are required, but may be empty (PS3.5, 7.4.3).
_TYPE_2_ELEMENTS = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PositionReferenceIndicator",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)


@dataclass(frozen=True)
class _Frame:
    """A frame of a segmentation: its labels, and its place in the patient."""

    labels: NDArray[np.integer]
    """[rows, columns]: the segment number, or 0."""
    affine: NDArray[np.float64]
    """[4, 3]: maps (row, column, 1) to (x, y, z, 1) in mm, LPS."""


@dataclass(frozen=True)
class Segmentation:
    """The content of a SEG file."""

    path: Path
    segments: dict[int, str]
    """The label of each segment, by its number."""
    frames: tuple[_Frame, ...]

    def to_labels(self, geometry: Geometry) -> Volume:
        """Its segment numbers on the voxels of a series, uint8 or uint16; 0 for background.

        Raises:
            DataError: Its pixels do not coincide with the voxels of the series or have another
                size, or two segments overlap.
        """
        dtype = np.uint8 if max(self.segments, default=0) < 2**8 else np.uint16
        voxels = np.zeros(geometry.shape, dtype)
        inverse = np.linalg.inv(geometry.affine)
        for number, frame in enumerate(self.frames, start=1):
            transform = inverse @ frame.affine
            self._check_pixels(frame, geometry, transform, number)
            self._add_frame(voxels, frame, transform, number)
        return Volume(voxels, geometry.affine)

    def _check_pixels(
        self, frame: _Frame, geometry: Geometry, transform: NDArray[np.float64], number: int
    ) -> None:
        """DataError if a step to the next pixel is not a step to the next voxel."""
        steps = np.abs(transform[:3, :2])
        rounded = np.rint(steps)
        is_close = np.abs(steps - rounded).max() <= _MAX_STEP_ERROR
        if is_close and (rounded.sum(axis=0) == 1).all():
            return
        lengths = np.linalg.norm(frame.affine[:3, :2], axis=0)
        spacing = np.array(geometry.spacing[:2])
        if np.abs(lengths / spacing - 1.0).max() > _MAX_STEP_ERROR:
            raise DataError(
                f"frame {number} of {self.path} has pixels of {lengths[0]:.4g} x {lengths[1]:.4g} "
                f"mm, and its series of {spacing[0]:.4g} x {spacing[1]:.4g} mm: resample it to the "
                "pixels of the series."
            )
        raise DataError(
            f"frame {number} of {self.path} lies in another direction than its series: resample "
            "it to the pixels of the series."
        )

    def _add_frame(
        self, voxels: NDArray, frame: _Frame, transform: NDArray[np.float64], number: int
    ) -> None:
        """transform: [4, 3], maps (row, column, 1) of the frame to an index of the voxels."""
        rows, columns = np.nonzero(frame.labels)
        exact = transform[:3] @ np.stack([rows, columns, np.ones_like(rows)])
        indices = np.rint(exact).astype(int)
        shape = np.array(voxels.shape)[:, None]
        if np.abs(exact - indices).max(initial=0.0) > _MAX_DISPLACEMENT:
            raise DataError(
                f"frame {number} of {self.path} lies between the voxels of its series: give the "
                "series that it was drawn on."
            )
        if ((indices < 0) | (indices >= shape)).any():
            raise DataError(
                f"frame {number} of {self.path} has foreground outside of its series: give the "
                "complete series that it was drawn on."
            )
        labels = frame.labels[rows, columns]
        present = voxels[tuple(indices)]
        if (overlap := (present != 0) & (present != labels)).any():
            first = int(np.argmax(overlap))
            raise DataError(
                f"the segments {self.segments.get(int(present[first]))} and "
                f"{self.segments.get(int(labels[first]))} of {self.path} overlap: a voxel has one "
                "label."
            )
        voxels[tuple(indices)] = labels


def read_segmentation(path: Path) -> Segmentation:
    """Read a SEG file; fractional segments are foreground from one half of their maximum.

    Raises DataError naming the file if it is damaged or not a segmentation.
    """
    dataset, pixels = read_pixels(path)
    if dataset.get("Modality") != "SEG" or not dataset.get("SegmentSequence"):
        raise DataError(f"{path} is not a DICOM segmentation: its modality is not SEG.")
    try:
        segments = {
            int(item.SegmentNumber): str(item.get("SegmentLabel") or item.SegmentNumber)
            for item in dataset.SegmentSequence
        }
        stacked = pixels if pixels.ndim == 3 else pixels[None]
        frame_groups = dataset.PerFrameFunctionalGroupsSequence
        if len(stacked) != len(frame_groups):
            count = pluralize(len(stacked), "frame")
            raise DataError(
                f"{path} has positions of {len(frame_groups)} frames, but {count}: export it again."
            )
        frames = tuple(
            _Frame(_labels_of(dataset, groups, frame), _affine_of(dataset, groups))
            for groups, frame in zip(frame_groups, stacked, strict=True)
        )
    except (AttributeError, ValueError, IndexError, TypeError) as error:
        raise DataError(
            f"the segmentation {path} is incomplete: {first_line(error)}; export it again."
        ) from error
    return Segmentation(path, segments, frames)


def read_segment_names(path: Path) -> dict[int, str]:
    """The labels that a SEG file gives to its segments, by their number, from its header alone.

    Raises DataError naming the file if it is damaged.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(
            path, specific_tags=["SegmentSequence"], stop_before_pixels=True, force=True
        )
        segments = {
            int(item.SegmentNumber): str(item.get("SegmentLabel") or "").strip()
            for item in dataset.SegmentSequence
        }
    except Exception as error:  # pydicom raises errors of every type for damaged files
        raise DataError(
            f"the segments of {path} cannot be read: {first_line(error)}; export it again."
        ) from error
    return {number: name for number, name in segments.items() if name}


def encode_segmentation(
    series: DicomSeries, labels: NDArray[np.uint8], classes: Sequence[str]
) -> bytes:
    """A SEG file with a prediction for a series.

    It names the patient and the study of the series, as DICOM requires.

    Args:
        series: The series that was segmented.
        labels: [slices, rows, columns] in the order of series.slices: 0 for background, else the
            number of a class, from 1.
        classes: The names of the classes.

    Raises:
        DataError: The headers of the series lack an element that a segmentation needs.
    """
    return _encode_slices(series, series.slices, labels, classes)


def check_segmentation_source(series: DicomSeries) -> None:
    """DataError if no SEG file can be written for a series.

    Its first slice is segmented, which needs the same elements of the headers.
    """
    first = series.slices[0]
    _encode_slices(series, [first], np.ones((1, first.rows, first.columns), np.uint8), ["check"])


def _encode_slices(
    series: DicomSeries,
    slices: Sequence[SliceHeader],
    labels: NDArray[np.uint8],
    classes: Sequence[str],
) -> bytes:
    """A SEG file of some slices of a series; labels: [slices, rows, columns]."""
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="segfleet", version=version("segfleet"), family=codes.DCM.ArtificialIntelligence
    )
    structure: Any = codes.SCT.AnatomicalStructure
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=structure,
            segmented_property_type=highdicom.sr.CodedConcept(
                _code_value(name, number), "99SEGFLEET", name[:64]
            ),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(classes, start=1)
    ]
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=_read_sources(series, slices),
            pixel_array=labels,
            segmentation_type="BINARY",
            segment_descriptions=descriptions,
            series_instance_uid=highdicom.UID(),
            series_number=1000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="segfleet",
            manufacturer_model_name="segfleet",
            software_versions=version("segfleet"),
            device_serial_number="0",
        )
    except (AttributeError, ValueError) as error:
        raise DataError(
            f"a DICOM SEG cannot be written for {series.name}: {first_line(error)}; choose the "
            "format nifti."
        ) from error
    content = BytesIO()
    segmentation.save_as(content)
    return content.getvalue()


def _read_sources(series: DicomSeries, slices: Sequence[SliceHeader]) -> list[Any]:
    """The headers of slices of a series, with the elements that a segmentation copies from them."""
    import pydicom

    distance = series.geometry().spacing[2]
    datasets = []
    for header in slices:
        dataset = pydicom.dcmread(header.path, stop_before_pixels=True, force=True)
        for keyword in _TYPE_2_ELEMENTS:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
        if not dataset.get("SliceThickness"):
            dataset.SliceThickness = distance
        datasets.append(dataset)
    return datasets


def _code_value(name: str, number: int) -> str:
    """The code of a class: its name; a long name is cut to 16 characters, with its number."""
    if len(name) <= _MAX_CODE:
        return name
    end = f"-{number}"
    return name[: _MAX_CODE - len(end)] + end


def _labels_of(dataset: Any, groups: Any, frame: NDArray) -> NDArray[np.integer]:
    """The segment number of each pixel of a frame."""
    if dataset.SegmentationType == "LABELMAP":
        return frame
    identification = _find_group(dataset, groups, "SegmentIdentificationSequence")
    segment = int(identification.ReferencedSegmentNumber)
    level = 0.5
    if dataset.SegmentationType == "FRACTIONAL":
        level = dataset.MaximumFractionalValue / 2.0
    return (frame >= level) * np.min_scalar_type(segment).type(segment)


def _affine_of(dataset: Any, groups: Any) -> NDArray[np.float64]:
    """[4, 3]: maps (row, column, 1) of a frame to (x, y, z, 1)."""
    plane = _find_group(dataset, groups, "PlaneOrientationSequence")
    measures = _find_group(dataset, groups, "PixelMeasuresSequence")
    position = _find_group(dataset, groups, "PlanePositionSequence").ImagePositionPatient
    orientation = np.array(plane.ImageOrientationPatient, float)
    row_spacing, column_spacing = map(float, measures.PixelSpacing)
    affine = np.zeros((4, 3))
    affine[:3, 0] = orientation[3:] * row_spacing
    affine[:3, 1] = orientation[:3] * column_spacing
    affine[:3, 2] = np.array(position, float)
    affine[3, 2] = 1.0
    return affine


def _find_group(dataset: Any, groups: Any, name: str) -> Any:
    """A functional group of a frame, which all frames may share (PS3.3, C.7.6.16)."""
    owner = groups if name in groups else dataset.SharedFunctionalGroupsSequence[0]
    return getattr(owner, name)[0]
