"""Volumes keep every voxel at its place in the patient, whatever the order of their axes."""

import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.volume import Geometry, Volume, list_differences, to_integers
from tests.volumes import AXES, COLUMN_MM, FLIPS, ROW_MM, SLICE_MM, reorder, rotate, standard_volume

STANDARD = standard_volume()


def test_the_standard_order_is_feet_to_head_front_to_back_right_to_left() -> None:
    geometry = STANDARD.geometry
    assert geometry.orientation == "SPL"
    assert geometry.spacing == (ROW_MM, COLUMN_MM, SLICE_MM)
    assert geometry.voxel_ml == pytest.approx(ROW_MM * COLUMN_MM * SLICE_MM / 1000)
    assert reorder(STANDARD, (2, 0, 1), (False, True, False)).geometry.orientation == "LIP"


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("axes", AXES)
def test_every_orientation_is_brought_to_the_standard_order_and_back(
    axes: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    stored = reorder(STANDARD, axes, flips)
    standard = stored.to_standard()
    np.testing.assert_array_equal(standard.voxels, STANDARD.voxels)
    np.testing.assert_allclose(standard.affine, STANDARD.affine, atol=1e-12)
    assert stored.geometry.to_standard().shape == standard.voxels.shape
    assert stored.geometry.to_standard().spacing == (ROW_MM, COLUMN_MM, SLICE_MM)
    np.testing.assert_array_equal(stored.geometry.from_standard(standard.voxels), stored.voxels)


@pytest.mark.parametrize("degrees", [-40.0, 12.5, 40.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_oblique_volumes_are_assigned_to_the_closest_axes(degrees: float, axis: int) -> None:
    oblique = rotate(STANDARD, degrees, axis)
    stored = reorder(oblique, (1, 2, 0), (True, False, True))
    np.testing.assert_array_equal(stored.to_standard().voxels, STANDARD.voxels)
    np.testing.assert_allclose(stored.to_standard().affine, oblique.affine, atol=1e-9)
    assert stored.geometry.voxel_ml == pytest.approx(STANDARD.geometry.voxel_ml)


def changed(**columns: float) -> Geometry:
    """The standard geometry with changed entries of the affine: name row_column."""
    affine = STANDARD.affine.copy()
    for name, value in columns.items():
        row, column = map(int, name[1:].split("_"))
        affine[row, column] = value
    return Geometry(STANDARD.geometry.shape, affine)


def test_geometries_within_a_quarter_of_a_voxel_are_equal() -> None:
    assert list_differences(STANDARD.geometry, STANDARD.geometry) == []
    assert list_differences(changed(a0_3=-31.1), STANDARD.geometry) == []


def test_what_differs_is_named() -> None:
    other = Geometry((5, 12, 15), STANDARD.affine)
    assert list_differences(other, STANDARD.geometry) == [
        "it has 5 x 12 x 15 slices x rows x columns, not 5 x 12 x 16"
    ]
    assert list_differences(changed(a2_0=2.0), STANDARD.geometry) == [
        "its spacing is 0.75 x 0.5 x 2, not 0.75 x 0.5 x 2.5 mm (rows, columns, slices)"
    ]
    shifted = changed(a0_3=-30.75, a2_3=99.75)
    assert list_differences(shifted, STANDARD.geometry) == [
        "its origin is shifted by 0.25 x 0 x -7.5 mm (x, y, z)"
    ]
    assert list_differences(shifted, STANDARD.geometry, ignore_origin=True) == []
    rotated = rotate(STANDARD, 5.0, 2).geometry
    assert list_differences(rotated, STANDARD.geometry, ignore_origin=True) == [
        "its axes are rotated by 5.0 degrees"
    ]


def test_a_shift_by_half_a_voxel_is_found() -> None:
    corner = changed(a0_3=STANDARD.affine[0, 3] - COLUMN_MM / 2)
    assert list_differences(corner, STANDARD.geometry) == [
        "its origin is shifted by -0.25 x 0 x 0 mm (x, y, z)"
    ]


def test_intensities_become_integers() -> None:
    assert to_integers(np.array([-1000.0, 3000.4]), "a").tolist() == [-1000, 3000]
    assert to_integers(np.array([-1000.0, 3000.0]), "a").dtype == np.int16
    assert to_integers(np.array([0, 65535], np.uint16), "a").dtype == np.int32
    assert to_integers(np.array([0.0, 32767.7]), "a").tolist() == [0, 32768]
    assert to_integers(np.array([-32768.4, 32767.4]), "a").tolist() == [-32768, 32767]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 0.5, 1.0], r"a\.nii has fractional values from 0 to 1, which integers cannot"),
        ([0.0, np.nan], r"a\.nii contains NaN"),
        ([-5.0, 40000.0], r"a\.nii has values from -5 to 40000, which do not fit in 16 bits"),
        ([0.0, 65535.7], r"a\.nii has values from 0 to 65536, which do not fit in 16 bits"),
        ([-5.0, 32767.7], r"a\.nii has values from -5 to 32768, which do not fit in 16 bits"),
        ([1j], r"a\.nii contains complex128 values"),
    ],
)
def test_values_that_integers_cannot_represent_are_errors(
    values: list[float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        to_integers(np.array(values), "a.nii")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rounding_does_not_change_the_order_of_a_volume_at_45_degrees(axis: int) -> None:
    """NIfTI stores float32, so that the affines of an image and of its labels differ slightly."""
    exact = rotate(STANDARD, 45.0, axis).geometry
    for sign in (-1, 1):
        rounded = Geometry(
            exact.shape, exact.affine * (1 + sign * 1e-7 * np.eye(4)[:, [2, 0, 1, 3]])
        )
        assert list_differences(rounded.to_standard(), exact.to_standard()) == []


def test_a_sheared_volume_keeps_its_shear() -> None:
    affine = STANDARD.affine.copy()
    affine[1, 0] = 0.9  # a tilted gantry
    tilted = Volume(STANDARD.voxels, affine)
    stored = reorder(tilted, (0, 1, 2), (True, True, False))
    np.testing.assert_allclose(stored.to_standard().affine, affine, atol=1e-12)
    assert tilted.geometry.voxel_ml == pytest.approx(STANDARD.geometry.voxel_ml)
