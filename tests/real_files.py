"""The table of docs/data.md: what becomes of the files that pydicom and nibabel test with.

`python -m tests.real_files` prints it.
"""

import re
from pathlib import Path

import nibabel
import pydicom.data

from contract.errors import DataError
from contract.imaging.dicom_seg import read_segmentation
from contract.imaging.volume_files import VolumeFile, find_volumes

FOLDERS = {
    "pydicom": Path(pydicom.data.__file__).parent / "test_files",
    "nibabel": Path(nibabel.__file__).parent,
}
PATTERNS = (
    "pydicom/CT_small.dcm",
    "pydicom/693_J2KI.dcm",
    "pydicom/J2K_pixelrep_mismatch.dcm",
    "pydicom/MR_small*.dcm",
    "pydicom/MR_truncated.dcm",
    "pydicom/examples_overlay.dcm",
    "pydicom/dicomdirtests/98892001/CT5N",
    "pydicom/dicomdirtests/98892001/CT2N",
    "pydicom/dicomdirtests/77654033/CT2",
    "pydicom/dicomdirtests/98892003/MR1",
    "pydicom/dicomdirtests/98892003/MR2",
    "pydicom/dicomdirtests/98892003/MR700",
    "pydicom/dicomdirtests/77654033/CR*",
    "pydicom/dicomdirtests/TINY_ALPHA/PT000000",
    "pydicom/dicomdirtests/DICOMDIR*.dcm",
    "pydicom/liver*.dcm",
    "pydicom/rtstruct.dcm",
    "pydicom/rtplan*.dcm",
    "pydicom/rtdose*.dcm",
    "pydicom/ExplVR_BigEnd.dcm",
    "pydicom/ExplVR_*NoMeta.dcm",
    "pydicom/SC_*.dcm",
    "pydicom/JP*.dcm",
    "pydicom/GDCMJ2K_TextGBR.dcm",
    "pydicom/examples_[jpry]*.dcm",
    "pydicom/image_dfl.dcm",
    "pydicom/*SR*.dcm",
    "pydicom/reportsi*.dcm",
    "pydicom/waveform_ecg.dcm",
    "pydicom/UN_sequence.dcm",
    "pydicom/badVR.dcm",
    "pydicom/empty_charset_LEI.dcm",
    "pydicom/*meta*.dcm",
    "pydicom/*priv_SQ.dcm",
    "nibabel/tests/data/anatomical.nii",
    "nibabel/tests/data/standard.nii.gz",
    "nibabel/tests/data/reoriented_anat_moved.nii",
    "nibabel/tests/data/resampled_anat_moved.nii",
    "nibabel/tests/data/example4d.nii.gz",
    "nibabel/tests/data/example_nifti2.nii.gz",
    "nibabel/tests/data/functional.nii",
    "nibabel/tests/data/row_major.dconn.nii",
    "nibabel/tests/data/?.dcm",
    "nibabel/nicom/tests/data/?.dcm",
    "nibabel/nicom/tests/data/csa_slice_norm.dcm",
    "nibabel/nicom/tests/data/decimal_rescale.dcm",
    "nibabel/nicom/tests/data/slicethickness_empty_string.dcm",
)


def list_paths(pattern: str) -> list[Path]:
    """The files or folders that a row of the table stands for."""
    package, _, rest = pattern.partition("/")
    return sorted(FOLDERS[package].glob(rest))


def describe(pattern: str) -> str:
    """What becomes of these files, or the sentences with which they are refused."""
    return "; ".join(sorted({each for path in list_paths(pattern) for each in _outcomes(path)}))


def table() -> str:
    """The table as Markdown."""
    rows = [f"| `{pattern}` | {describe(pattern)} |" for pattern in PATTERNS]
    return "\n".join(["| files | result |", "| --- | --- |", *rows])


def _outcomes(path: Path) -> list[str]:
    try:
        folder = find_volumes(path)
        if folder.segmentations:
            segmentation = read_segmentation(folder.segmentations[0].path)
            segments = ", ".join(segmentation.segments.values())
            return [f"**read** as labels: {segments}, {len(segmentation.frames)} slice"]
        return [_describe_volume(volume, path) for volume in folder.volumes] or ["no image"]
    except DataError as error:
        return [_error_text(error, path)]


def _describe_volume(file: VolumeFile, path: Path) -> str:
    try:
        volume = file.read()
    except DataError as error:
        return _error_text(error, path)
    geometry = volume.geometry
    shape = " x ".join(map(str, geometry.shape))
    spacing = " x ".join(f"{value:g}" for value in geometry.spacing)
    values = f"{volume.voxels.min()} to {volume.voxels.max()}"
    return f"**read**: {shape}, {geometry.orientation}, {spacing} mm, values {values}"


def _error_text(error: DataError, path: Path) -> str:
    """The sentence without the path of the file and its folder."""
    text = re.sub(rf"{re.escape(str(path))}(/\w+)?", "…", str(error))
    return text.removesuffix(".").replace("… ", "", 1) if text.startswith("…") else text[:-1]


if __name__ == "__main__":
    print(table())  # noqa: T201
