"""Small volumes of unmistakable handedness, and the DICOM and NIfTI files of them."""

import gzip
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from contract.imaging.nifti import encode_nifti
from contract.imaging.volume import Volume

SHAPE = (5, 12, 16)
"""Slices, rows, columns."""
ROW_MM, COLUMN_MM, SLICE_MM = 0.75, 0.5, 2.5
ORIGIN = (-31.0, -52.5, 107.25)
PATIENT_NAME, BIRTH_DATE, PATIENT_ID = "Doe^Jane", "19700131", "MRN4711"


def standard_volume(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Volume:
    """Hounsfield units, different in every voxel, in the standard order.

    A bright L lies in the front at the patient's right, on the lower slices: no rotation or flip
    maps it onto itself.
    """
    slices, rows, columns = shape
    voxels = np.arange(slices * rows * columns).reshape(shape) % 900 - 1000 + seed
    voxels[label_array(shape) > 0] += 1200
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SLICE_MM, ROW_MM, COLUMN_MM
    affine[:, 3] = (*ORIGIN, 1.0)
    return Volume(voxels.astype(np.int16), affine)


def label_array(shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """The labels of the L: its long leg is 1, its short leg is 2."""
    slices, rows, columns = shape
    labels = np.zeros(shape, np.uint8)
    labels[: slices - 2, rows // 6 : rows // 2, columns // 8 : columns // 4] = 1
    labels[: slices - 2, rows // 2 - 2 : rows // 2, columns // 4 : columns // 2] = 2
    return labels


def standard_labels(shape: tuple[int, int, int] = SHAPE) -> Volume:
    """The labels of standard_volume."""
    return Volume(label_array(shape), standard_volume(shape).affine)


def reorder(volume: Volume, axes: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same voxels at the same places in the patient, stored in another order."""
    voxels = volume.voxels.transpose(axes)
    affine = volume.affine[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            voxels = np.flip(voxels, axis)
            affine[:, 3] += (voxels.shape[axis] - 1) * affine[:, axis]
            affine[:, axis] *= -1.0
    return Volume(np.ascontiguousarray(voxels), affine)


def rotate(volume: Volume, degrees: float, axis: int) -> Volume:
    """A volume whose patient lies rotated about the x, y or z axis."""
    angle = np.radians(degrees)
    first, second = (each for each in range(3) if each != axis)
    rotation = np.eye(4)
    rotation[first, first] = rotation[second, second] = np.cos(angle)
    rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
    return Volume(volume.voxels, rotation @ volume.affine)


FLIPS: list[tuple[bool, ...]] = list(product((False, True), repeat=3))
"""The eight orientations of the same axes."""
AXES = list(permutations(range(3)))


def write_nifti(path: Path, volume: Volume) -> Path:
    """A .nii.gz or .nii file of a volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = encode_nifti(volume)
    path.write_bytes(content if path.suffix == ".gz" else gzip.decompress(content))
    return path


def write_series(folder: Path, volume: Volume, **elements: Any) -> list[Path]:
    """A CT series of a volume, one file per slice; names and instance numbers mean nothing.

    elements: DICOM elements that replace those of every slice; None removes one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    order = np.random.default_rng(7).permutation(len(volume.voxels))
    paths = []
    for number, (index, pixels) in zip(order, enumerate(volume.voxels), strict=True):
        dataset = _slice_dataset(volume, index, pixels, number + 1)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID = frame
        for name, value in elements.items():
            if value is None:
                del dataset[name]
            else:
                setattr(dataset, name, value)
        paths.append(folder / f"{number:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def edit_file(path: Path, **elements: Any) -> None:
    """Change elements of a DICOM file; None removes one."""
    dataset = pydicom.dcmread(path)
    for name, value in elements.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)


def _slice_dataset(volume: Volume, index: int, pixels: NDArray[np.integer], number: int) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientName, dataset.PatientID = PATIENT_NAME, PATIENT_ID
    dataset.PatientBirthDate, dataset.PatientSex = BIRTH_DATE, "F"
    dataset.StudyID, dataset.AccessionNumber, dataset.SeriesNumber = "1", "", 1
    dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20200101", "120000", ""
    dataset.Manufacturer, dataset.InstanceNumber = "tests", int(number)
    dataset.PositionReferenceIndicator = ""
    steps = volume.affine[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    dataset.PixelSpacing = [float(spacing[1]), float(spacing[2])]
    dataset.SliceThickness = float(spacing[0])
    directions = [*(steps[:, 2] / spacing[2]), *(steps[:, 1] / spacing[1])]
    dataset.ImageOrientationPatient = [round(float(value), 10) for value in directions]
    position = volume.affine @ [index, 0, 0, 1]
    dataset.ImagePositionPatient = [round(float(value), 8) for value in position[:3]]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = (pixels.astype(np.int32) + 1024).astype("<u2").tobytes()
    return dataset
