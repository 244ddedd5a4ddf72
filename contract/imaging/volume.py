"""Volumes: stacks of parallel slices with their position in the patient.

Positions are in DICOM's patient coordinates, LPS: x grows to the patient's left, y to the back
(posterior), z to the head (superior), in mm (DICOM PS3.3, C.7.6.2.1.1). NIfTI's coordinates, RAS,
have the opposite x and y.

The standard order of voxels is that of axial slices as radiologists see them: slices from the feet
to the head, rows from front to back, columns from the patient's right to the left. Every volume is
brought into this order by transposing and flipping its axes, which changes no voxel.
"""

from dataclasses import dataclass
from itertools import permutations, product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError

Affine = NDArray[np.float64]
"""[4, 4]: maps (slice, row, column, 1) to (x, y, z, 1) in mm, LPS."""

# The patient axis (x, y, z) along which slices, rows and columns grow in the standard order.
_STANDARD_AXES = (2, 1, 0)
_LETTERS = ("RL", "AP", "IS")
# Of a voxel: below half of it, so that a shift from the center of a voxel to its corner is found.
_MAX_DISPLACEMENT = 0.25
_MIN_DIRECTION_COSINE = np.cos(np.radians(0.1))
# The cosine of the angle between two axes.
_MAX_SHEAR = 1e-4
# Rounding may change a value by at most this fraction of the range of the values.
_MAX_ROUNDING = 1e-3


@dataclass(frozen=True)
class Geometry:
    """The size of a volume and its position in the patient."""

    shape: tuple[int, int, int]
    """Slices, rows, columns."""
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distances in mm between rows, columns and slices, rounded to a nanometer."""
        slices, rows, columns = np.linalg.norm(self.affine[:3, :3], axis=0)
        return round(float(rows), 6), round(float(columns), 6), round(float(slices), 6)

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel in milliliters."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def is_sheared(self) -> bool:
        """Whether its axes are not perpendicular, as those of a tilted gantry."""
        directions = _unit_vectors(self.affine)
        return bool(np.abs(directions.T @ directions - np.eye(3)).max() > _MAX_SHEAR)

    @property
    def orientation(self) -> str:
        """To which side slices, rows and columns grow: "SPL" in the standard order."""
        directions, (axes, _) = _unit_vectors(self.affine), _axis_order(self.affine)
        # axes[k] is the array axis that is closest to the k-th axis of the standard order.
        patient_axes = {axis: _STANDARD_AXES[position] for position, axis in enumerate(axes)}
        return "".join(
            _LETTERS[patient_axes[axis]][int(directions[patient_axes[axis], axis] > 0)]
            for axis in range(3)
        )

    def to_standard(self) -> Self:
        """The geometry after Volume.to_standard."""
        axes, flips = _axis_order(self.affine)
        shape = self.shape[axes[0]], self.shape[axes[1]], self.shape[axes[2]]
        affine = self.affine[:, [*axes, 3]].copy()
        for axis, flip in enumerate(flips):
            if flip:
                affine[:, 3] += (shape[axis] - 1) * affine[:, axis]
                affine[:, axis] *= -1.0
        return type(self)(shape, affine)

    def from_standard(self, voxels: NDArray) -> NDArray:
        """Voxels in the standard order, such as a mask, in the order of this geometry."""
        axes, flips = _axis_order(self.affine)
        flipped = voxels[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
        return np.ascontiguousarray(flipped.transpose(np.argsort(axes)))


@dataclass(frozen=True)
class Volume:
    """A stack of parallel slices: Hounsfield units, other intensities, or labels."""

    voxels: NDArray[np.integer]
    """[slices, rows, columns]."""
    affine: Affine

    @property
    def geometry(self) -> Geometry:
        """Its size and position."""
        slices, rows, columns = self.voxels.shape
        return Geometry((slices, rows, columns), self.affine)

    def to_standard(self) -> Self:
        """The volume in the standard order; an oblique one is assigned to its closest axes."""
        axes, flips = _axis_order(self.affine)
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
        voxels = np.ascontiguousarray(self.voxels.transpose(axes)[steps])
        return type(self)(voxels, self.geometry.to_standard().affine)


def list_differences(
    geometry: Geometry, expected: Geometry, *, ignore_origin: bool = False
) -> list[str]:
    """What differs between two geometries, as phrases; empty if the voxels coincide.

    Voxels coincide if none is displaced by more than a quarter of a voxel.

    Args:
        geometry: The geometry that is checked.
        expected: The geometry that it should have, in the same order of axes.
        ignore_origin: Whether the position of the first voxel may differ.
    """
    if geometry.shape != expected.shape:
        return [f"it has {_by(geometry.shape)} slices x rows x columns, not {_by(expected.shape)}"]
    affine = geometry.affine.copy()
    if ignore_origin:
        affine[:, 3] = expected.affine[:, 3]
    corners = np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in geometry.shape))])
    displacements = np.linalg.solve(expected.affine, (affine - expected.affine) @ corners.T)
    if np.abs(displacements).max() <= _MAX_DISPLACEMENT:
        return []
    return _describe_affines(Geometry(geometry.shape, affine), expected)


def to_integers(values: NDArray, name: str) -> NDArray[np.int16 | np.int32]:
    """Intensities as integers: int16 if they fit, else int32 with values of 16 bits.

    Args:
        values: Intensities; fractions are rounded.
        name: What an error calls the volume.

    Raises:
        DataError: Values are NaN or infinite, do not fit in 16 bits, or have too small a range to
            be rounded.
    """
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name} contains {values.dtype} values: save it with integers or floats.")
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{name} contains NaN or infinite values: replace them.")
    low, high = round(float(low)), round(float(high))
    if low < -(2**15) or high >= 2**16 or (low < 0 and high >= 2**15):
        raise DataError(
            f"{name} has values from {low:g} to {high:g}, which do not fit in 16 bits: rescale it."
        )
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        smallest, largest = values.min(), values.max()
        if np.abs(values - rounded).max() > _MAX_ROUNDING * (largest - smallest):
            raise DataError(
                f"{name} has fractional values from {smallest:g} to {largest:g}, which integers "
                "cannot represent: multiply them by a constant first."
            )
        values = rounded
    return values.astype(np.int16 if high < 2**15 else np.int32, copy=False)


def _describe_affines(geometry: Geometry, expected: Geometry) -> list[str]:
    """Which of spacing, directions and origin differ; at least one."""
    differences = []
    cosines = np.sum(_unit_vectors(geometry.affine) * _unit_vectors(expected.affine), axis=0)
    spacing, expected_spacing = np.array(geometry.spacing), np.array(expected.spacing)
    if np.abs(spacing / expected_spacing - 1.0).max() > _MAX_ROUNDING:
        differences.append(
            f"its spacing is {_mm(geometry.spacing)}, not {_mm(expected.spacing)} mm "
            "(rows, columns, slices)"
        )
    if cosines.min() < _MIN_DIRECTION_COSINE:
        angle = np.degrees(np.arccos(np.clip(cosines.min(), -1.0, 1.0)))
        differences.append(f"its axes are rotated by {angle:.1f} degrees")
    offset = geometry.affine[:3, 3] - expected.affine[:3, 3]
    if not differences or np.linalg.norm(offset) > _MAX_DISPLACEMENT * expected_spacing.min():
        differences.append(f"its origin is shifted by {_mm(tuple(offset))} mm (x, y, z)")
    return differences


def _axis_order(affine: Affine) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """The array axes that become slices, rows and columns, and which of these are flipped."""
    directions = _unit_vectors(affine)

    def alignment(axes: tuple[int, ...]) -> float:
        pairs = zip(_STANDARD_AXES, axes, strict=True)
        total = sum(abs(directions[patient_axis, axis]) for patient_axis, axis in pairs)
        # At 45 degrees, two orders are equally close: rounding in a file must not decide.
        return round(float(total), 4)

    slices, rows, columns = max(permutations(range(3)), key=alignment)
    z, y, x = _STANDARD_AXES
    flips = (
        bool(directions[z, slices] < 0),
        bool(directions[y, rows] < 0),
        bool(directions[x, columns] < 0),
    )
    return (slices, rows, columns), flips


def _unit_vectors(affine: Affine) -> NDArray[np.float64]:
    """The directions of the axes as columns [3, 3]."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _mm(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
