"""Segmentations are read onto the voxels of their series, and written for other readers."""

from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels.utils import pack_bits

from contract.errors import DataError
from contract.imaging.dicom_files import read_header
from contract.imaging.dicom_seg import (
    check_segmentation_source,
    encode_segmentation,
    read_segmentation,
)
from contract.imaging.dicom_series import DicomSeries, group_series
from contract.imaging.volume import Geometry, Volume
from tests.volumes import (
    BIRTH_DATE,
    COLUMN_MM,
    FLIPS,
    ROW_MM,
    SHAPE,
    SLICE_MM,
    edit_file,
    label_array,
    reorder,
    rotate,
    standard_labels,
    standard_volume,
    write_series,
)

CLASSES = ("leg", "short leg")
# Elements of type 2 (PS3.3): present, but possibly empty.
EMPTY_ELEMENTS = (
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


def write_pair(folder: Path, flips: tuple[bool, ...] = (False,) * 3) -> tuple[DicomSeries, Path]:
    """An oblique series in some orientation, and the segmentation of its labels."""
    write_series(folder / "series", reorder(rotate(standard_volume(), 15.0, 0), (0, 1, 2), flips))
    (series,) = group_series(read_header(file) for file in (folder / "series").iterdir())
    labels = series.geometry().from_standard(label_array())
    path = folder / "labels.dcm"
    path.write_bytes(encode_segmentation(series, labels, CLASSES))
    return series, path


@pytest.mark.parametrize("flips", FLIPS)
def test_a_segmentation_is_where_its_series_is(flips: tuple[bool, ...], tmp_path: Path) -> None:
    series, path = write_pair(tmp_path, flips)
    segmentation = read_segmentation(path)
    assert segmentation.segments == {1: "leg", 2: "short leg"}
    # A byte per pixel: a file may have a frame for each slice and each of many segments.
    assert {frame.labels.dtype for frame in segmentation.frames} == {np.dtype(np.uint8)}
    labels = segmentation.to_labels(series.geometry()).to_standard()
    np.testing.assert_array_equal(labels.voxels, label_array())
    # highdicom's reader finds the same voxels at the same places, without our geometry.
    other: Any = highdicom.seg.segread(path).get_volume(combine_segments=True)
    points = np.argwhere(other.array)
    places = other.map_indices_to_reference(points)
    expected = np.argwhere(labels.voxels)
    our_places = (np.c_[expected, np.ones(len(expected))] @ labels.affine.T)[:, :3]
    order, our_order = np.lexsort(places.round(2).T), np.lexsort(our_places.round(2).T)
    np.testing.assert_allclose(places[order], our_places[our_order], atol=0.01)
    np.testing.assert_array_equal(
        other.array[tuple(points[order].T)], labels.voxels[tuple(expected[our_order].T)]
    )


def test_a_written_segmentation_belongs_to_the_patient_and_study(tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    dataset, source = pydicom.dcmread(path), pydicom.dcmread(series.slices[0].path)
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert dataset[name].value == source[name].value
    assert dataset.PatientBirthDate == BIRTH_DATE
    assert read_header(path).referenced_series == (series.uid,)


def test_an_empty_prediction_is_written(tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    path.write_bytes(encode_segmentation(series, np.zeros(SHAPE, np.uint8), CLASSES))
    assert not read_segmentation(path).to_labels(series.geometry()).voxels.any()


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_other_types_of_segmentations_are_read(kind: str, tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    binary = highdicom.seg.segread(path)
    labels = standard_labels().voxels
    pixels = np.where(labels == 1, 0.8, 0.3).astype(np.float32)
    is_fractional = kind == "FRACTIONAL"
    headers = [pydicom.dcmread(header.path) for header in series.slices]
    descriptions = [binary.get_segment_description(number) for number in (1, 2)]
    segmentation: Any = highdicom.seg.Segmentation(
        headers,
        pixels if is_fractional else labels,
        kind,
        descriptions[: 1 if is_fractional else 2],
        highdicom.UID(),
        1,
        highdicom.UID(),
        1,
        "tests",
        "tests",
        "1",
        "1",
    )
    segmentation.save_as(path)
    expected = labels == 1 if is_fractional else labels
    np.testing.assert_array_equal(
        read_segmentation(path).to_labels(series.geometry()).voxels, expected
    )


def test_a_segmentation_of_another_series_is_an_error(tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    geometry = series.geometry()
    shifted = geometry.affine.copy()
    shifted[:3, 3] += shifted[:3, 0] / 2
    with pytest.raises(DataError, match=r"frame 1 of .*labels\.dcm lies between the voxels"):
        read_segmentation(path).to_labels(Geometry(geometry.shape, shifted))
    with pytest.raises(DataError, match=r"labels\.dcm has foreground outside of its series"):
        read_segmentation(path).to_labels(Geometry((2, *geometry.shape[1:]), geometry.affine))


def test_overlapping_segments_are_named(tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    dataset = pydicom.dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    for item in groups[:3]:  # the frames of segment 1, again as segment 2
        item.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
    for item in groups[3:]:
        item.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2
    pixels = dataset.pixel_array.copy()
    pixels[3:] = pixels[:3]
    dataset.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    dataset.save_as(path)
    with pytest.raises(DataError, match=r"segments leg and short leg of .* overlap"):
        read_segmentation(path).to_labels(series.geometry())


def test_a_segmentation_with_other_pixels_than_its_series_is_an_error(tmp_path: Path) -> None:
    """Their centers are those of voxels: every second one would be foreground."""
    series, path = write_pair(tmp_path)
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array[:, ::2, ::2]
    dataset.Rows, dataset.Columns = frames.shape[1:]
    dataset.PixelData = pack_bits(frames)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [2 * ROW_MM, 2 * COLUMN_MM]
    dataset.save_as(path)
    expected = (
        r"labels\.dcm has pixels of 1\.5 x 1 mm, and its series of 0\.75 x 0\.5 mm: resample it"
    )
    with pytest.raises(DataError, match=expected):
        read_segmentation(path).to_labels(series.geometry())


def test_a_segmentation_in_another_direction_is_an_error(tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    geometry = series.geometry()
    rotated = rotate(Volume(label_array(), geometry.affine), 5.0, 2).affine
    rotated[:3, 3] = geometry.affine[:3, 3]
    with pytest.raises(DataError, match=r"labels\.dcm lies in another direction than its series"):
        read_segmentation(path).to_labels(Geometry(geometry.shape, rotated))


def test_what_is_not_a_segmentation_is_an_error(tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    slice_path = series.slices[0].path
    with pytest.raises(DataError, match="is not a DICOM segmentation"):
        read_segmentation(slice_path)
    edit_file(path, SharedFunctionalGroupsSequence=None)
    with pytest.raises(DataError, match=r"segmentation .*labels\.dcm is incomplete"):
        read_segmentation(path)
    for header in series.slices:
        edit_file(header.path, StudyInstanceUID=None)
    with pytest.raises(DataError, match=r"a DICOM SEG cannot be written for .*StudyInstanceUID"):
        encode_segmentation(series, label_array(), CLASSES)


def test_a_segmentation_of_another_program_is_read(tmp_path: Path) -> None:
    """liver_1frame.dcm of pydicom, written by dcmqi; two of its three frames were removed."""
    path = Path(str(get_testdata_file("liver_1frame.dcm")))
    with pytest.raises(DataError, match="has positions of 3 frames, but 1 frame: export it again"):
        read_segmentation(path)
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1:]
    dataset.save_as(tmp_path / "complete.dcm")
    segmentation = read_segmentation(tmp_path / "complete.dcm")
    assert segmentation.segments == {1: "Liver"}
    expected: Any = highdicom.seg.segread(path).get_volume(combine_segments=True)
    labels = segmentation.to_labels(Geometry(expected.spatial_shape, expected.affine))
    np.testing.assert_array_equal(labels.voxels, expected.array)
    assert labels.voxels.any()


def test_absent_elements_that_may_be_empty_are_written_empty(tmp_path: Path) -> None:
    series, _ = write_pair(tmp_path)
    for header in series.slices:
        edit_file(header.path, **dict.fromkeys(EMPTY_ELEMENTS), SliceThickness=None)
    check_segmentation_source(series)
    (tmp_path / "seg.dcm").write_bytes(encode_segmentation(series, label_array(), CLASSES))
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert dataset.AccessionNumber == ""
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == pytest.approx(SLICE_MM)
    read = read_segmentation(tmp_path / "seg.dcm").to_labels(series.geometry())
    np.testing.assert_array_equal(read.voxels, label_array())


def test_a_series_is_checked_before_its_segmentation_exists(tmp_path: Path) -> None:
    series, _ = write_pair(tmp_path)
    check_segmentation_source(series)
    for header in series.slices:
        edit_file(header.path, FrameOfReferenceUID=None)
    with pytest.raises(
        DataError, match=r"a DICOM SEG cannot be written for .*series: .*Frame Of Ref"
    ):
        check_segmentation_source(series)


def test_the_codes_of_long_class_names_are_different(tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    names = ("left kidney, upper pole", "left kidney, upper third", "kidney")
    path.write_bytes(encode_segmentation(series, label_array(), names))
    segments = pydicom.dcmread(path).SegmentSequence
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in segments]
    assert codes == ["left kidney, u-1", "left kidney, u-2", "kidney"]
    assert read_segmentation(path).segments == dict(enumerate(names, start=1))


def test_segmentations_can_be_written_to_memory(tmp_path: Path) -> None:
    series, path = write_pair(tmp_path)
    content = encode_segmentation(series, label_array(), CLASSES)
    dataset = pydicom.dcmread(BytesIO(content))
    assert dataset.SOPClassUID == pydicom.dcmread(path).SOPClassUID
    assert dataset.Modality == "SEG"
