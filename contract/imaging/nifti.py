"""NIfTI files: images, labels and masks (NIfTI-1 and NIfTI-2, .nii or .nii.gz).

NIfTI stores voxels as [i, j, k] with an affine to RAS coordinates; a Volume has [k, j, i] and LPS.
nibabel is imported by the functions, because a light client does not have it.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError, first_line
from contract.imaging.volume import Affine, Geometry, Volume, to_integers

SUFFIXES = (".nii.gz", ".nii")

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Millimeters in a unit of length.
_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}
# Exchanges i and k.
_KJI = [2, 1, 0, 3]


def is_nifti(name: str) -> bool:
    """Whether a file is named like a NIfTI file."""
    return name.lower().endswith(SUFFIXES)


def nifti_stem(path: Path) -> str:
    """The name of a NIfTI file without its suffix."""
    return path.name[: -len(next(end for end in SUFFIXES if path.name.lower().endswith(end)))]


def read_nifti_geometry(path: Path) -> Geometry:
    """The geometry in a file's header; DataError naming the file if it is not valid."""
    image = _load(path)
    columns, rows, slices = image.shape[:3]
    return Geometry((slices, rows, columns), _affine_of(image))


def read_nifti(path: Path) -> Volume:
    """The image in a file, with its intensities as integers.

    Raises:
        DataError: The file is damaged, has several volumes or no orientation, or its values are
            not intensities of 16 bits.
    """
    image = _load(path)
    return Volume(to_integers(_voxels_of(image, path), str(path)), _affine_of(image))


def read_nifti_labels(path: Path) -> Volume:
    """The labels in a file: uint8 or uint16 voxels, 0 for background.

    Raises:
        DataError: The file is damaged, has several volumes or no orientation, or its values are
            not integers from 0 to 65535.
    """
    image = _load(path)
    values = _voxels_of(image, path)
    low, high = values.min(), values.max()
    is_integral = values.dtype.kind in "iu" or bool(np.all(values == np.rint(values)))
    if not is_integral or low < 0 or high >= 2**16:
        raise DataError(
            f"{path} has values from {low:g} to {high:g}, which are not labels: labels are "
            "integers from 0 to 65535."
        )
    return Volume(values.astype(np.uint8 if high < 2**8 else np.uint16), _affine_of(image))


def encode_nifti(volume: Volume) -> bytes:
    """The content of a .nii.gz file with the voxels and the geometry of a volume."""
    import nibabel

    affine = _RAS_TO_LPS @ volume.affine[:, _KJI]
    image: Any = nibabel.Nifti1Image(volume.voxels.transpose(2, 1, 0), affine)
    image.set_sform(affine, code="scanner")
    # A qform is a rotation, which cannot express the shear of a tilted gantry.
    if not volume.geometry.is_sheared:
        image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _load(path: Path) -> Any:
    """The image of a file, with one volume and a valid orientation."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if not is_nifti(path.name):
        raise DataError(f"{path} is not a NIfTI file: save it as .nii or .nii.gz.")
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    try:
        image: Any = nibabel.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}; replace it.") from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise DataError(f"{path} is {type(image).__name__}, not a NIfTI volume: convert it.")
    _check_header(image, path)
    return image


def _check_header(image: Any, path: Path) -> None:
    size = " x ".join(map(str, image.shape))
    if (volumes := math.prod(image.shape[3:])) > 1:
        raise DataError(f"{path} contains {volumes} volumes ({size}): save one volume per file.")
    if len(image.shape) < 3 or 0 in image.shape:
        raise DataError(f"{path} has the size {size}: a volume has columns, rows and slices.")
    if image.header["qform_code"] == 0 and image.header["sform_code"] == 0:
        raise DataError(
            f"{path} has no orientation (qform_code and sform_code are 0): convert it again with a "
            "program that writes the orientation."
        )
    if not np.isfinite(image.affine).all() or np.linalg.det(image.affine[:3, :3]) == 0:
        raise DataError(f"the affine of {path} is not invertible: convert it again.")


def _voxels_of(image: Any, path: Path) -> NDArray:
    """Values [slices, rows, columns], scaled as the header says, in native byte order."""
    try:
        values = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}; replace it.") from error
    if values.dtype.kind not in "iuf":
        raise DataError(f"{path} contains {values.dtype} values: save it with integers or floats.")
    values = values.reshape(values.shape[:3]).transpose(2, 1, 0)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _affine_of(image: Any) -> Affine:
    """The affine to LPS in mm; a header without a unit is in mm."""
    unit, _ = image.header.get_xyzt_units()
    scale = np.diag([*[_MM.get(unit, 1.0)] * 3, 1.0])
    return (_RAS_TO_LPS @ scale @ np.asarray(image.affine, np.float64))[:, _KJI]
