"""DICOM series are sorted by geometry, checked, and rescaled to Hounsfield units."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from contract.errors import DataError
from contract.imaging.dicom_files import read_header
from contract.imaging.dicom_series import DicomSeries, group_series
from contract.imaging.volume import Volume
from tests.volumes import (
    FLIPS,
    SLICE_MM,
    edit_file,
    reorder,
    rotate,
    standard_volume,
    write_series,
)

STANDARD = standard_volume()


def read_series(*folders: Path) -> list[DicomSeries]:
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    return group_series(read_header(file) for file in files)


def series_in(folder: Path) -> DicomSeries:
    (series,) = read_series(folder)
    return series


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_every_orientation_is_read_in_the_standard_order(
    axes: tuple[int, ...], flips: tuple[bool, ...], tmp_path: Path
) -> None:
    """Axial, coronal and sagittal slices, increasing and decreasing, with mirrored axes."""
    write_series(tmp_path, reorder(STANDARD, axes, flips))
    volume = series_in(tmp_path).read()
    np.testing.assert_array_equal(volume.to_standard().voxels, STANDARD.voxels)
    np.testing.assert_allclose(volume.to_standard().affine, STANDARD.affine, atol=1e-6)
    assert volume.voxels.dtype == np.int16


def test_oblique_and_tilted_series_keep_their_affine(tmp_path: Path) -> None:
    oblique = rotate(rotate(STANDARD, 25.0, 0), -15.0, 1)
    write_series(tmp_path / "oblique", oblique)
    tilted = standard_volume()
    tilted.affine[1, 0] = 0.6  # the slices of a tilted gantry are not above each other
    write_series(tmp_path / "tilted", tilted)
    for name, expected in (("oblique", oblique), ("tilted", tilted)):
        volume = series_in(tmp_path / name).read()
        np.testing.assert_array_equal(volume.voxels, STANDARD.voxels)
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-6)


def test_rescaling_is_applied_to_each_slice(tmp_path: Path) -> None:
    paths = write_series(tmp_path, STANDARD)
    expected = STANDARD.voxels.astype(int)
    edit_file(paths[1], RescaleSlope=2, RescaleIntercept=-2000)
    expected[1] = 2 * (expected[1] + 1024) - 2000
    np.testing.assert_array_equal(series_in(tmp_path).read().voxels, expected)


def test_fractional_slopes_are_rounded(tmp_path: Path) -> None:
    write_series(tmp_path, STANDARD, RescaleSlope=3.1, RescaleIntercept=0)
    expected = np.rint(3.1 * (STANDARD.voxels.astype(float) + 1024))
    np.testing.assert_allclose(series_in(tmp_path).read().voxels, expected, atol=1)


def test_the_rescaling_of_ct_is_never_assumed(tmp_path: Path) -> None:
    paths = write_series(tmp_path, STANDARD)
    for elements in (
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleSlope": "", "RescaleIntercept": ""},
    ):
        edit_file(paths[1], **elements)
        with pytest.raises(DataError, match=rf"{paths[1].name} is CT .* no RescaleSlope and no R"):
            series_in(tmp_path).read()
        edit_file(paths[1], RescaleSlope=1, RescaleIntercept=-1024)
    edit_file(paths[1], RescaleIntercept="")
    with pytest.raises(DataError, match=rf"{paths[1].name} has a RescaleSlope, but no RescaleInte"):
        series_in(tmp_path).read()


def test_all_slices_of_other_modalities_are_rescaled_or_none(tmp_path: Path) -> None:
    paths = write_series(
        tmp_path, STANDARD, Modality="MR", RescaleSlope=None, RescaleIntercept=None
    )
    expected = STANDARD.voxels.astype(int) + 1024
    np.testing.assert_array_equal(series_in(tmp_path).read().voxels, expected)
    edit_file(paths[1], RescaleSlope=2, RescaleIntercept=0)
    with pytest.raises(DataError, match=r"only some slices of .* have a RescaleSlope, such as .*"):
        series_in(tmp_path).read()


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_padding_is_not_an_intensity(modality: str, tmp_path: Path) -> None:
    """Scanners fill the corners with a value below the range, often the lowest that fits."""
    paths = write_series(
        tmp_path,
        STANDARD,
        Modality=modality,
        PixelRepresentation=1,
        RescaleIntercept=-1024,
        PixelPaddingValue=-32768,
    )
    expected = STANDARD.voxels.copy()
    for path in paths:
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array.copy()
        pixels[0, :3] = -32768
        edit_file(path, PixelData=pixels.tobytes())
    lowest = expected.reshape(len(expected), -1)[:, 3:].min(axis=1)
    expected[:, 0, :3] = -1024 if modality == "CT" else lowest[:, None]
    volume = series_in(tmp_path).read()
    np.testing.assert_array_equal(volume.voxels, expected)
    assert volume.voxels.dtype == np.int16


def test_a_range_of_padding_is_read(tmp_path: Path) -> None:
    (path,) = write_series(
        tmp_path,
        Volume(np.array([[[-1024, -1023, -1022, 5]]], np.int16), STANDARD.affine),
        RescaleIntercept=-2000,
        PixelPaddingValue=0,
        PixelPaddingRangeLimit=1,
    )
    assert series_in(tmp_path).read().voxels.tolist() == [[[-1024, -1024, -1998, -971]]]
    # A value between other intensities, such as 0 HU, is one of them, whatever the header says.
    edit_file(path, PixelPaddingValue=2, PixelPaddingRangeLimit=None)
    assert series_in(tmp_path).read().voxels.tolist() == [[[-2000, -1999, -1998, -971]]]


def test_a_damaged_modality_lut_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, STANDARD)
    edit_file(paths[1], ModalityLUTSequence=[Dataset()])
    with pytest.raises(DataError, match=rf"{paths[1].name} cannot be rescaled: .*LUTDescriptor"):
        series_in(tmp_path).read()


def test_mixed_folders_are_grouped_by_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a", STANDARD)
    write_series(tmp_path / "b", standard_volume(seed=3))
    for index, file in enumerate((tmp_path / "b").iterdir()):
        shutil.move(file, tmp_path / "a" / f"other{index}")
    first, second = read_series(tmp_path / "a")
    np.testing.assert_array_equal(first.read().voxels, STANDARD.voxels)
    np.testing.assert_array_equal(second.read().voxels, STANDARD.voxels + 3)


def test_patients_with_the_same_series_uid_are_separated(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(tmp_path / name, STANDARD, SeriesInstanceUID="1.2.3", PatientID=name)
    assert [series.folder.name for series in read_series(tmp_path / "a", tmp_path / "b")] == [
        "a",
        "b",
    ]


def test_copies_of_slices_are_ignored_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_series(tmp_path, STANDARD)
    shutil.copy(paths[2], tmp_path / "copy.dcm")
    shutil.copy(paths[3], tmp_path / "export.dcm")
    edit_file(tmp_path / "export.dcm", SOPInstanceUID="1.2.3")
    series = series_in(tmp_path)
    np.testing.assert_array_equal(series.read().voxels, STANDARD.voxels)
    assert f"{tmp_path} contains 2 copies of slices, which are ignored" in caplog.text


@pytest.mark.parametrize("instance", ["1.2.3", ""])
def test_slices_with_one_uid_are_copies_only_if_their_pixels_are_equal(
    instance: str, tmp_path: Path
) -> None:
    paths = write_series(tmp_path, STANDARD, SOPInstanceUID=instance)
    shutil.copy(paths[2], tmp_path / "phase.dcm")
    pixels = pydicom.dcmread(paths[2]).PixelData
    edit_file(tmp_path / "phase.dcm", PixelData=bytes(len(pixels)))
    with pytest.raises(DataError, match=r"different slices at the same position, such as .*phase"):
        series_in(tmp_path).geometry()


def test_different_slices_at_one_position_are_an_error(tmp_path: Path) -> None:
    write_series(tmp_path, STANDARD, SeriesInstanceUID="1.2.3")
    phase = write_series(tmp_path / "phase", standard_volume(seed=5), SeriesInstanceUID="1.2.3")
    shutil.move(phase[0], tmp_path / "phase.dcm")
    shutil.rmtree(tmp_path / "phase")
    with pytest.raises(DataError, match=r"different slices at the same position, such as .*phase"):
        series_in(tmp_path).read()


def test_a_gap_names_its_neighbors_and_width(tmp_path: Path) -> None:
    paths = write_series(tmp_path, standard_volume((8, 12, 16)))
    paths[4].unlink()
    expected = rf"gap of 5 mm between {paths[3].name} and {paths[5].name}, where .* 2\.5 mm apart"
    with pytest.raises(DataError, match=expected):
        series_in(tmp_path).geometry()


@pytest.mark.parametrize("missing", [1, 2])
def test_a_gap_in_a_series_of_four_slices_is_a_gap(missing: int, tmp_path: Path) -> None:
    paths = write_series(tmp_path, standard_volume((4, 12, 16)))
    paths[missing].unlink()
    with pytest.raises(DataError, match=r"has a gap of 5 mm between .*, where .* 2\.5 mm apart"):
        series_in(tmp_path).geometry()


def test_unequal_distances_and_shifted_slices_are_errors(tmp_path: Path) -> None:
    paths = write_series(tmp_path, STANDARD)
    position = list(read_header(paths[2]).position or ())
    edit_file(paths[2], ImagePositionPatient=[*position[:2], position[2] + 0.3])
    with pytest.raises(DataError, match=r"are 2\.2 to 2\.8 mm apart: resample"):
        series_in(tmp_path).geometry()
    edit_file(paths[2], ImagePositionPatient=[position[0] + 4, *position[1:]])
    with pytest.raises(DataError, match="shifted against each other"):
        series_in(tmp_path).geometry()


def test_a_localizer_is_an_error(tmp_path: Path) -> None:
    paths = write_series(tmp_path, STANDARD)
    edit_file(paths[0], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    with pytest.raises(DataError, match=r"have several orientations \(a localizer\?\)"):
        series_in(tmp_path).geometry()


def test_a_single_slice_has_the_thickness_of_its_header(tmp_path: Path) -> None:
    write_series(tmp_path, standard_volume((1, 12, 16)))
    geometry = series_in(tmp_path).geometry()
    assert geometry.shape == (1, 12, 16)
    assert geometry.spacing[2] == SLICE_MM
    (file,) = tmp_path.iterdir()
    edit_file(file, SliceThickness=None)
    with pytest.raises(DataError, match="single slice without SpacingBetweenSlices and SliceThick"):
        series_in(tmp_path).geometry()


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"Modality": "US"}, "has the modality US, not CT, MR or PT"),
        ({"Modality": "RTSTRUCT"}, "RTSTRUCT.*convert its contours to DICOM SEG"),
        ({"NumberOfFrames": 3}, "contains 3 frames: export the series as one file per slice"),
        ({"SamplesPerPixel": 3}, "is in color"),
        ({"ImageType": ["ORIGINAL", "MOSAIC"]}, "is a mosaic of slices"),
        ({"PixelSpacing": None}, "has no PixelSpacing, so its place"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing of .* is not positive"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not a pair of perpendicular unit"),
        ({"Rows": None}, "has no pixels"),
    ],
)
def test_what_is_not_a_slice_is_an_error(
    elements: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_series(tmp_path, STANDARD, **elements)
    with pytest.raises(DataError, match=message) as error:
        series_in(tmp_path).geometry()
    assert str(tmp_path) in str(error.value)
