"""Labels find their volume by series, by name and by number, and are checked by geometry."""

from pathlib import Path

import numpy as np
import pytest

from contract.imaging.dicom_seg import encode_segmentation
from contract.imaging.volume import Volume
from contract.imaging.volume_files import VolumeFile, find_volumes
from tests.volumes import (
    SHAPE,
    label_array,
    reorder,
    standard_labels,
    standard_volume,
    write_nifti,
    write_series,
)
from trainer.data.importers.labels import LabelFile, Pairing, pair_labels, segmentation_file

STANDARD, LABELS = standard_volume(), standard_labels()
NIH = (False, True, False)
"""The rows of the label files of NIH Pancreas-CT are stored from back to front."""


def write_images(folder: Path, *names: str) -> list[VolumeFile]:
    for name in names:
        write_nifti(folder / f"{name}.nii.gz", STANDARD)
    return find_volumes(folder).volumes


def write_labels(folder: Path, *names: str) -> list[LabelFile]:
    return [LabelFile(write_nifti(folder / f"{name}.nii.gz", LABELS)) for name in names]


def names_of(pairing: Pairing) -> dict[str, str]:
    return {pair.labels.name: pair.volume.name for pair in pairing.pairs}


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (("a", "b"), ("b", "a"), {"a": "a", "b": "b"}),
        (("a_0000", "b_0000"), ("a", "b"), {"a": "a_0000", "b": "b_0000"}),
        (
            ("P_0001", "P_0010"),
            ("label0010", "label1"),
            {"label0010": "P_0010", "label1": "P_0001"},
        ),
        (("image",), ("truth",), {"truth": "image"}),
    ],
)
def test_names(
    images: tuple[str, ...], labels: tuple[str, ...], expected: dict[str, str], tmp_path: Path
) -> None:
    pairing = pair_labels(
        write_images(tmp_path / "i", *images), write_labels(tmp_path / "l", *labels)
    )
    assert names_of(pairing) == expected
    assert not pairing.failures
    assert not pairing.unlabeled


def test_labels_without_a_volume_and_volumes_without_labels_are_reported(tmp_path: Path) -> None:
    volumes = write_images(tmp_path / "i", "a", "b")
    labels = write_labels(tmp_path / "l", "a", "c", "label7")
    pairing = pair_labels(volumes, labels)
    assert names_of(pairing) == {"a": "a"}
    assert [volume.name for volume in pairing.unlabeled] == ["b"]
    assert [message.partition(" has ")[2] for message in pairing.failures.values()] == [
        "no volume: no volume of its name is in the given folders."
    ] * 2


def test_two_labels_of_a_volume_are_an_error(tmp_path: Path) -> None:
    volumes = write_images(tmp_path / "i", "a_0000", "b")
    labels = write_labels(tmp_path / "l", "a", "a_0000")
    (message,) = pair_labels(volumes, labels).failures.values()
    assert "are both labels of" in message


def test_an_ambiguous_number_is_not_used(tmp_path: Path) -> None:
    volumes = write_images(tmp_path / "i", "x1", "y1")
    assert not pair_labels(volumes, write_labels(tmp_path / "l", "label1")).pairs
    assert not pair_labels(volumes[:1], write_labels(tmp_path / "m", "l1", "m1")).pairs


def test_labels_stored_in_another_orientation_fit(tmp_path: Path) -> None:
    """As in NIH Pancreas-CT: a DICOM series, and a NIfTI file whose voxels are flipped."""
    write_series(tmp_path / "CT/PANCREAS_0001", reorder(STANDARD, (0, 1, 2), (True, False, False)))
    labels = LabelFile(
        write_nifti(tmp_path / "l/label0001.nii.gz", reorder(LABELS, (0, 1, 2), NIH))
    )
    (pair,) = pair_labels(find_volumes(tmp_path / "CT").volumes, [labels]).pairs
    geometry = pair.volume.geometry()
    np.testing.assert_array_equal(pair.labels.read(geometry).voxels, label_array())


def test_labels_of_another_geometry_say_what_differs(tmp_path: Path) -> None:
    volumes = write_images(tmp_path / "i", "a")
    shifted = LABELS.affine.copy()
    shifted[:3, 3] = 0.0
    file = LabelFile(write_nifti(tmp_path / "l/a.nii.gz", Volume(LABELS.voxels[:4], LABELS.affine)))
    (failure,) = pair_labels(volumes, [file]).failures.values()
    expected = "it has 4 x 12 x 16 slices x rows x columns, not 5 x 12 x 16; give the labels that"
    assert expected in failure
    write_nifti(file.path, Volume(LABELS.voxels, shifted))
    (failure,) = pair_labels(volumes, [file]).failures.values()
    expected = (
        "its origin is shifted by 31 x 52.5 x -107.2 mm (x, y, z); export it again, or give -"
    )
    assert expected in failure
    assert pair_labels(volumes, [file], ignore_origin=True).pairs


def test_a_localizer_in_the_folder_of_a_patient_is_not_labeled(tmp_path: Path) -> None:
    write_series(tmp_path / "CT/P_1/scout", standard_volume((1, 12, 16)))
    write_series(tmp_path / "CT/P_1/axial", STANDARD)
    labels = write_labels(tmp_path / "l", "label1")
    pairing = pair_labels(find_volumes(tmp_path / "CT").volumes, labels)
    (pair,) = pairing.pairs
    assert pair.volume.path == "P_1/axial"
    assert [volume.path for volume in pairing.unlabeled] == ["P_1/scout"]


def test_a_segmentation_names_its_series(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_series(tmp_path / name, STANDARD)
    volumes = find_volumes(tmp_path).volumes
    assert volumes[1].series
    path = tmp_path / "seg.dcm"
    path.write_bytes(encode_segmentation(volumes[1].series, label_array(), ("one", "two")))
    (header,) = find_volumes(path).segmentations
    pairing = pair_labels(volumes, [segmentation_file(header)])
    (pair,) = pairing.pairs
    assert pair.volume == volumes[1]
    labels = pair.labels.read(volumes[1].geometry())
    assert labels.voxels.shape == SHAPE
    np.testing.assert_array_equal(labels.voxels, label_array())
    (failure,) = pair_labels(volumes[:1], [segmentation_file(header)]).failures.values()
    assert failure.endswith("has no volume: its series is not in the given folders.")
