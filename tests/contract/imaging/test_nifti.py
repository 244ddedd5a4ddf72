"""NIfTI files are read with their orientation and written so that other programs agree."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.nifti import (
    encode_nifti,
    is_nifti,
    nifti_stem,
    read_nifti,
    read_nifti_geometry,
    read_nifti_labels,
)
from tests.volumes import (
    AXES,
    FLIPS,
    label_array,
    reorder,
    rotate,
    standard_labels,
    standard_volume,
    write_nifti,
)

STANDARD = standard_volume()
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


IDENTITY = np.eye(4)


def write(path: Path, data: np.ndarray, affine: np.ndarray | None = IDENTITY) -> None:
    """A file that nibabel writes; affine: None for a file without orientation."""
    image: Any = nibabel.Nifti1Image(data, affine)
    nibabel.save(image, path)


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("axes", AXES)
def test_every_orientation_is_read_in_the_standard_order(
    axes: tuple[int, ...], flips: tuple[bool, ...], tmp_path: Path
) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", reorder(STANDARD, axes, flips))
    volume = read_nifti(path)
    np.testing.assert_array_equal(volume.to_standard().voxels, STANDARD.voxels)
    np.testing.assert_allclose(volume.to_standard().affine, STANDARD.affine, atol=1e-4)
    assert read_nifti_geometry(path).shape == volume.geometry.shape
    # nibabel's own way to the closest canonical orientation (RAS) agrees.
    canonical: Any = nibabel.as_closest_canonical(nibabel.load(path))
    expected = STANDARD.voxels.transpose(2, 1, 0)[::-1, ::-1]
    np.testing.assert_array_equal(np.asarray(canonical.dataobj), expected)


def test_an_oblique_file_keeps_its_affine(tmp_path: Path) -> None:
    oblique = rotate(rotate(STANDARD, 20.0, 0), 10.0, 2)
    path = write_nifti(tmp_path / "a.nii", oblique)
    np.testing.assert_allclose(read_nifti(path).affine, oblique.affine, atol=1e-4)
    image: Any = nibabel.load(path)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    np.testing.assert_allclose(image.affine, RAS @ oblique.affine[:, [2, 1, 0, 3]], atol=1e-4)


def test_nifti_2_and_scaled_and_big_endian_files_are_read(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    second: Any = nibabel.Nifti2Image(data, np.eye(4))
    nibabel.save(second, tmp_path / "second.nii.gz")
    assert read_nifti(tmp_path / "second.nii.gz").voxels[3, 2, 1] == data[1, 2, 3]
    scaled: Any = nibabel.Nifti1Image(data, np.eye(4))
    scaled.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    assert read_nifti(tmp_path / "scaled.nii").voxels[3, 2, 1] == 2 * data[1, 2, 3] - 1024
    swapped: Any = nibabel.Nifti1Image(data, np.eye(4), nibabel.Nifti1Header(endianness=">"))
    nibabel.save(swapped, tmp_path / "swapped.nii")
    volume = read_nifti(tmp_path / "swapped.nii")
    assert volume.voxels.dtype.isnative
    assert volume.voxels[3, 2, 1] == data[1, 2, 3]


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e-3), ("meter", 1e3), ("unknown", 1.0)])
def test_lengths_are_converted_to_mm(unit: str, factor: float, tmp_path: Path) -> None:
    image: Any = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    geometry = read_nifti_geometry(tmp_path / "a.nii")
    assert geometry.spacing == pytest.approx((3 * factor, 2 * factor, 4 * factor))
    assert geometry.affine[3].tolist() == [0, 0, 0, 1]


def test_the_shear_of_a_tilted_gantry_is_only_in_the_sform(tmp_path: Path) -> None:
    """A qform is a rotation: a program that prefers it would move the slices."""
    tilted = standard_volume()
    tilted.affine[1, 0] = 0.6
    image: Any = nibabel.load(write_nifti(tmp_path / "a.nii", tilted))
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 1)
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").affine, tilted.affine, atol=1e-5)
    straight: Any = nibabel.load(write_nifti(tmp_path / "b.nii", rotate(STANDARD, 20.0, 0)))
    assert (int(straight.header["qform_code"]), int(straight.header["sform_code"])) == (1, 1)


def test_labels_are_integers_from_0(tmp_path: Path) -> None:
    labels = standard_labels()
    path = tmp_path / "a.nii.gz"
    write(path, labels.voxels.transpose(2, 1, 0).astype(np.float32))
    assert read_nifti_labels(path).voxels.dtype == np.uint8
    np.testing.assert_array_equal(read_nifti_labels(path).voxels, label_array())
    write(tmp_path / "b.nii", np.full((2, 2, 2), 300, np.int16))
    assert read_nifti_labels(tmp_path / "b.nii").voxels.dtype == np.uint16
    write(tmp_path / "c.nii", np.full((2, 2, 2), 0.5, np.float32))
    with pytest.raises(DataError, match=r"c\.nii has values from 0\.5 to 0\.5, which are not lab"):
        read_nifti_labels(tmp_path / "c.nii")


def test_invalid_files_are_named(tmp_path: Path) -> None:
    data = np.zeros((2, 3, 4), np.int16)
    complete = gzip.decompress(encode_nifti(STANDARD))
    (tmp_path / "short.nii").write_bytes(complete[:-40])
    (tmp_path / "short.nii.gz").write_bytes(encode_nifti(STANDARD)[:-40])
    (tmp_path / "text.nii").write_text("not a volume")
    write(tmp_path / "four.nii", np.zeros((2, 3, 4, 5), np.int16))
    write(tmp_path / "flat.nii", data[0])
    write(tmp_path / "nowhere.nii", data, None)
    write(tmp_path / "complex.nii", data.astype(np.complex64))
    messages = {
        "short.nii": "cannot be read",
        "short.nii.gz": "cannot be read",
        "text.nii": "cannot be read",
        "four.nii": r"contains 5 volumes \(2 x 3 x 4 x 5\)",
        "flat.nii": "has the size 3 x 4",
        "nowhere.nii": "has no orientation",
        "complex.nii": "contains complex64 values",
        "missing.nii": "there is no file",
        "a.mgz": "is not a NIfTI file",
    }
    for name, message in messages.items():
        with pytest.raises(DataError, match=message) as error:
            read_nifti(tmp_path / name)
        assert name in str(error.value)


def test_names_of_files() -> None:
    assert is_nifti("a.NII.GZ")
    assert not is_nifti("a.gz")
    assert nifti_stem(Path("x/case.1.nii.gz")) == "case.1"
