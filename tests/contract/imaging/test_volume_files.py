"""Files and folders are searched for volumes, which get the names of their patients."""

import shutil
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

from contract.errors import DataError
from contract.imaging.dicom_seg import encode_segmentation
from contract.imaging.volume_files import contains_volumes, digest_files, find_volumes
from tests import real_files
from tests.volumes import edit_file, label_array, standard_volume, write_nifti, write_series

STANDARD = standard_volume()
DATA_PAGE = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")


def test_a_folder_of_patients_is_named_by_the_first_folder(tmp_path: Path) -> None:
    for number in (1, 2):
        write_series(tmp_path / f"PANCREAS_{number:04d}/study/series", STANDARD)
    volumes = find_volumes(tmp_path).volumes
    assert [volume.name for volume in volumes] == ["PANCREAS_0001", "PANCREAS_0002"]
    assert volumes[0].path == "PANCREAS_0001/study/series"
    assert len(volumes[0].files) == len(STANDARD.voxels)
    np.testing.assert_array_equal(volumes[1].read().voxels, STANDARD.voxels)


def test_the_folder_of_one_study_is_the_patients(tmp_path: Path) -> None:
    write_series(tmp_path / "P7/study/series", STANDARD)
    (volume,) = find_volumes(tmp_path / "P7").volumes
    assert (volume.name, volume.path) == ("P7", "P7/study/series")


def test_nifti_files_are_named_by_themselves_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    write_nifti(tmp_path / "imagesTr/case_1.nii.gz", STANDARD)
    write_nifti(tmp_path / "imagesTr/._case_1.nii.gz", STANDARD)
    (tmp_path / "dataset.json").write_text("{}")
    (volume,) = find_volumes(tmp_path).volumes
    assert (volume.name, volume.path) == ("case_1", "imagesTr/case_1.nii.gz")
    assert volume.geometry().shape == STANDARD.voxels.shape
    (same,) = find_volumes(tmp_path / "imagesTr/case_1.nii.gz").volumes
    assert same.name == "case_1"
    assert same.digest() == volume.digest()


def test_segmentations_and_reports_are_not_volumes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_series(tmp_path / "P7", STANDARD)
    (volume,) = find_volumes(tmp_path / "P7").volumes
    assert volume.series
    content = encode_segmentation(volume.series, label_array(), ("one", "two"))
    (tmp_path / "P7/seg.dcm").write_bytes(content)
    write_series(tmp_path / "P7/report", standard_volume((1, 4, 4)), Modality="SR")
    (tmp_path / "P7/other").mkdir()
    (tmp_path / "P7/other/damaged.dcm").write_bytes(b"damaged")
    shutil.copy(real_files.FOLDERS["pydicom"] / "dicomdirtests/DICOMDIR", tmp_path / "P7")
    folder = find_volumes(tmp_path / "P7")
    (volume,) = folder.volumes
    assert len(volume.files) == len(paths)
    assert [header.path.name for header in folder.segmentations] == ["seg.dcm"]
    assert volume.geometry().shape == STANDARD.voxels.shape
    assert "damaged.dcm is not a DICOM image" in caplog.text
    assert "DICOMDIR" not in caplog.text
    with pytest.raises(DataError, match=r"damaged\.dcm"):
        find_volumes(tmp_path / "P7/other/damaged.dcm")


@pytest.mark.parametrize("content", [b"", b"\0" * 128 + b"DICM"])
def test_a_damaged_slice_fails_its_series_and_renames_no_other(
    content: bytes, tmp_path: Path
) -> None:
    """A series without its last slice has no gap."""
    for name in ("P1", "P2"):
        paths = write_series(tmp_path / name, STANDARD, PatientID=name)
    paths[-1].write_bytes(content)
    first, second = find_volumes(tmp_path).volumes
    assert (first.name, first.geometry().shape) == ("P1", STANDARD.voxels.shape)
    message = r"P2/\d+\.dcm cannot be read and may be a slice of .*P2: replace it"
    for read in (second.geometry, second.read):
        with pytest.raises(DataError, match=message):
            read()
    for path in paths:
        path.write_bytes(content)
    assert [volume.name for volume in find_volumes(tmp_path).volumes] == ["P1"]


@pytest.mark.parametrize(
    ("study", "patient"), [("", ""), ("1.2.3", ""), ("", "ANON"), ("1.2.3", None)]
)
def test_folders_without_identifiers_of_their_own_are_several_patients(
    study: str, patient: str | None, tmp_path: Path
) -> None:
    for name in ("P1", "P2"):
        identifier = name if patient is None else patient
        write_series(tmp_path / name, STANDARD, StudyInstanceUID=study, PatientID=identifier)
    assert [volume.name for volume in find_volumes(tmp_path).volumes] == ["P1", "P2"]


def test_folders_of_one_study_are_one_patient(tmp_path: Path) -> None:
    for name in ("arterial", "venous"):
        write_series(tmp_path / "P7" / name, STANDARD, StudyInstanceUID="1.2.3")
    assert [volume.name for volume in find_volumes(tmp_path / "P7").volumes] == ["P7", "P7"]


def test_series_of_one_folder_are_called_by_their_files(tmp_path: Path) -> None:
    for number in range(2):
        for path in write_series(tmp_path / str(number), STANDARD, StudyInstanceUID="1.2.3"):
            (tmp_path / "P1").mkdir(exist_ok=True)
            path.rename(tmp_path / f"P1/{number}{path.name}")
    assert [volume.label for volume in find_volumes(tmp_path / "P1").volumes] == [
        str(tmp_path / "P1/0000.dcm"),
        str(tmp_path / "P1/1000.dcm"),
    ]


@pytest.mark.parametrize("slope", ["", 1])
def test_invalid_values_and_files_that_cannot_be_read_are_explained(
    slope: object, tmp_path: Path
) -> None:
    paths = write_series(tmp_path / "P1", STANDARD)
    (volume,) = find_volumes(tmp_path).volumes
    if slope == "":
        edit_file(paths[0], RescaleSlope=slope)
        with pytest.raises(DataError, match=r"P1"):
            volume.read()
    else:
        paths[0].unlink()
        with pytest.raises(DataError, match=r"P1 cannot be read: .*No such file"):
            volume.digest()


def test_a_single_dicom_file_is_a_volume(tmp_path: Path) -> None:
    path, *_ = write_series(tmp_path, STANDARD)
    (volume,) = find_volumes(path).volumes
    assert volume.name == path.stem
    assert volume.geometry().shape == (1, *STANDARD.voxels.shape[1:])


def test_files_without_a_series_are_not_joined(tmp_path: Path) -> None:
    for path in write_series(tmp_path, STANDARD):
        edit_file(path, SeriesInstanceUID=None)
    assert len(find_volumes(tmp_path).volumes) == len(STANDARD.voxels)


def test_a_folder_with_volumes_and_image_files_is_an_error(tmp_path: Path) -> None:
    """A patient's CD has the icons of a viewer next to its series."""
    paths = write_series(tmp_path / "DICOM/P1", STANDARD)
    for folder in ("a viewer", "viewer"):  # before and after the series
        (tmp_path / folder).mkdir()
        icon = tmp_path / folder / "icon.png"
        icon.write_bytes(b"")
        with pytest.raises(DataError, match=r"contains volumes, .* and image files, .*icon\.png"):
            contains_volumes(str(tmp_path))
        icon.unlink()
    assert contains_volumes(str(tmp_path / "DICOM"))
    assert contains_volumes(str(paths[0]))


def test_a_folder_of_image_files_is_not_a_folder_of_volumes(tmp_path: Path) -> None:
    nifti = write_nifti(tmp_path / "volumes/a.nii.gz", STANDARD)
    series = write_series(tmp_path / "series", STANDARD)
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices/a.png").write_bytes(b"")
    assert contains_volumes(str(tmp_path / "volumes"))
    assert contains_volumes(str(nifti))
    assert contains_volumes(str(tmp_path / "series"))
    assert contains_volumes(str(series[0]))
    assert not contains_volumes(str(tmp_path / "slices"))
    assert not contains_volumes(str(tmp_path / "missing"))
    assert not contains_volumes("s3://bucket/slices")
    with pytest.raises(DataError, match="there is no file or folder"):
        find_volumes(tmp_path / "missing")


@pytest.mark.parametrize("pattern", real_files.PATTERNS)
def test_real_files_are_read_or_refused_as_the_page_says(pattern: str) -> None:
    assert real_files.list_paths(pattern)
    assert f"| `{pattern}` | {real_files.describe(pattern)} |\n" in DATA_PAGE


def test_the_page_lists_every_file_that_the_packages_ship() -> None:
    listed = {path for pattern in real_files.PATTERNS for path in real_files.list_paths(pattern)}
    shipped = {
        path
        for folder in real_files.FOLDERS.values()
        for suffix in ("dcm", "nii", "nii.gz")
        for path in folder.rglob(f"*.{suffix}")
    }
    assert {path for path in shipped - listed if path.parent not in listed} == set()


def test_a_real_series_is_where_highdicom_places_it() -> None:
    folder = real_files.FOLDERS["pydicom"] / "dicomdirtests/98892001/CT5N"
    (file,) = find_volumes(folder).volumes
    volume = file.read()
    expected: Any = highdicom.get_volume_from_series([pydicom.dcmread(f) for f in file.files])
    # highdicom stores slices from the head to the feet.
    assert expected.affine[2, 0] < 0
    np.testing.assert_array_equal(volume.voxels, expected.array[::-1])
    np.testing.assert_allclose(volume.affine, expected.flip_spatial(0).affine, atol=1e-5)


@pytest.mark.parametrize(
    "path", real_files.list_paths("pydicom/MR_small*.dcm"), ids=lambda p: p.name
)
def test_every_encoding_of_a_real_slice_gives_its_pixels(path: Path) -> None:
    """RLE, JPEG-LS, JPEG 2000, big-endian, implicit and padded variants of one MR slice."""
    (file,) = find_volumes(path).volumes
    expected = pydicom.dcmread(path.with_name("MR_small.dcm")).pixel_array
    np.testing.assert_array_equal(file.read().voxels[0], expected)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "example_nifti2.nii.gz"])
def test_a_real_oblique_volume_is_where_nibabel_places_it(name: str, tmp_path: Path) -> None:
    """The first of the volumes of oblique NIfTI-1 and NIfTI-2 files."""
    image: Any = nibabel.load(real_files.FOLDERS["nibabel"] / "tests/data" / name)
    nibabel.save(image.slicer[..., 0], tmp_path / name)
    (file,) = find_volumes(tmp_path / name).volumes
    standard = file.read().to_standard()
    canonical: Any = nibabel.as_closest_canonical(nibabel.load(tmp_path / name))
    # From RAS to LPS: x and y are reversed.
    expected = np.asarray(canonical.dataobj)[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(standard.voxels, expected)
    corner = canonical.affine @ [canonical.shape[0] - 1, canonical.shape[1] - 1, 0, 1]
    np.testing.assert_allclose(standard.affine[:3, 3], corner[:3] * [-1, -1, 1], atol=1e-3)


def test_a_digest_depends_on_the_content_alone(tmp_path: Path) -> None:
    paths = write_series(tmp_path, STANDARD)
    digest = digest_files(paths)
    renamed = [path.rename(path.with_name(f"x{path.name}")) for path in reversed(paths)]
    assert digest_files(renamed) == digest
    renamed[0].write_bytes(renamed[0].read_bytes() + b"\0")
    assert digest_files(renamed) != digest
