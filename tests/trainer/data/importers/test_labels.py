"""Labels find their volume by series, by name and by number, and are checked by geometry."""

from pathlib import Path

import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.dicom_seg import encode_segmentation
from contract.imaging.volume import Volume
from contract.imaging.volume_files import VolumeFile, find_volumes
from tests.volumes import (
    SHAPE,
    edit_file,
    label_array,
    reorder,
    standard_labels,
    standard_volume,
    write_nifti,
    write_series,
)
from trainer.data.importers.labels import (
    LabelFile,
    Pairing,
    check_value_names,
    pair_labels,
    segmentation_file,
)

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
    pairing = pair_labels(volumes, labels)
    (message,) = pairing.failures.values()
    assert f"{labels[0].path} and {labels[1].path} are labels of one {volumes[0].label}" in message
    assert (pairing.pairs, pairing.unlabeled) == ([], [volumes[1]])


def test_an_ambiguous_number_is_not_used(tmp_path: Path) -> None:
    volumes = write_images(tmp_path / "i", "x1", "y1")
    assert not pair_labels(volumes, write_labels(tmp_path / "l", "label1")).pairs
    assert not pair_labels(volumes[:1], write_labels(tmp_path / "m", "l1", "m1")).pairs


def test_labels_that_fit_two_phases_or_channels_are_an_error(tmp_path: Path) -> None:
    for phase in ("arterial", "venous"):
        write_series(tmp_path / "CT/P1" / phase, STANDARD, StudyInstanceUID="1.2.3")
    volumes = [
        *find_volumes(tmp_path / "CT/P1").volumes,
        *write_images(tmp_path / "i", "a_0000", "a_0001"),
    ]
    labels = write_labels(tmp_path / "l", "P1", "a")
    pairing = pair_labels(volumes, labels)
    # They have labels, which cannot be used.
    assert (pairing.pairs, pairing.unlabeled) == ([], [])
    for message, (first, second) in zip(
        pairing.failures.values(), (volumes[:2], volumes[2:]), strict=True
    ):
        expected = f"fits 2 volumes, such as {first.label} and {second.label}: give a DICOM seg"
        assert expected in message


def test_files_of_one_name_are_paired_by_their_folders(tmp_path: Path) -> None:
    for patient in ("sub-01", "sub-02"):
        write_nifti(tmp_path / f"im/{patient}/ct.nii.gz", STANDARD)
    volumes = find_volumes(tmp_path / "im").volumes
    files = {
        folder: LabelFile(write_nifti(tmp_path / f"l/{folder}/ct.nii.gz", LABELS), folder=folder)
        for folder in ("sub-01", "sub-02", "task/sub-02", "sub-03", "")
    }
    for given, expected in (
        (["sub-02"], ["sub-02"]),
        (["sub-02", "sub-01"], ["sub-02", "sub-01"]),
        (["task/sub-02"], ["sub-02"]),
    ):
        pairing = pair_labels(volumes, [files[folder] for folder in given])
        assert [pair.volume.path.split("/")[0] for pair in pairing.pairs] == expected
        assert not pairing.failures
    (message,) = pair_labels(volumes, [files[""]]).failures.values()
    assert "fits 2 volumes" in message
    pairing = pair_labels(volumes, [files["sub-02"], files["sub-03"]])
    assert [pair.labels for pair in pairing.pairs] == [files["sub-02"]]
    assert "no volume of its name" in pairing.failures[str(files["sub-03"].path)]


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


def write_segmentation(path: Path, volume: VolumeFile) -> LabelFile:
    assert volume.series
    path.write_bytes(encode_segmentation(volume.series, label_array(), ("one", "two")))
    (header,) = find_volumes(path).segmentations
    return segmentation_file(header)


def test_a_segmentation_belongs_to_its_patient(tmp_path: Path) -> None:
    """Two patients whose series have the same UID."""
    for name in ("P1", "P2"):
        write_series(tmp_path / name, STANDARD, SeriesInstanceUID="1.2.3", PatientID=name)
    first, second = find_volumes(tmp_path).volumes
    labels = write_segmentation(tmp_path / "seg.dcm", second)
    (pair,) = pair_labels([first, second], [labels]).pairs
    assert pair.volume == second
    (message,) = pair_labels([first], [labels]).failures.values()
    assert f"has another PatientID than its series {first.label}" in message


def test_a_segmentation_of_two_equal_series_belongs_to_its_study(tmp_path: Path) -> None:
    volumes = []
    for study in ("1.2.4", "1.2.5", "1.2.5"):
        folder = tmp_path / str(len(volumes))
        write_series(folder, STANDARD, SeriesInstanceUID="1.2.3", StudyInstanceUID=study)
        volumes += find_volumes(folder).volumes
    labels = write_segmentation(tmp_path / "seg.dcm", volumes[1])
    (pair,) = pair_labels(volumes[:2], [labels]).pairs
    assert pair.volume == volumes[1]
    (message,) = pair_labels(volumes, [labels]).failures.values()
    assert "fits 2 volumes" in message


def test_two_series_in_one_folder_are_different_volumes(tmp_path: Path) -> None:
    segmentations = []
    for name in ("A", "B"):
        write_series(tmp_path / name, STANDARD, StudyInstanceUID="1.2.3")
        (volume,) = find_volumes(tmp_path / name).volumes
        segmentations.append(write_segmentation(tmp_path / f"{name}.dcm", volume))
        (tmp_path / "P1").mkdir(exist_ok=True)
        for path in volume.files:
            path.rename(tmp_path / f"P1/{name}{path.name}")
    volumes = find_volumes(tmp_path / "P1").volumes
    pairing = pair_labels(volumes, segmentations)
    assert ([pair.volume for pair in pairing.pairs], pairing.failures) == (volumes, {})
    pairing = pair_labels(volumes, segmentations[1:])
    assert ([pair.volume for pair in pairing.pairs], pairing.unlabeled) == (
        volumes[1:],
        volumes[:1],
    )


def test_names_and_values_of_labels_agree() -> None:
    check_value_names(
        [
            ("a", {1: "Pancreas", 2: "lesion", 3: "lesion"}),
            ("b", {1: "pancreas ", 3: "Lesion"}),
            ("c", {}),
        ]
    )
    with pytest.raises(DataError, match="the label 1 is 'pancreas' in a and 'tumor' in b: give"):
        check_value_names([("a", {1: "pancreas"}), ("b", {1: "tumor"})])
    with pytest.raises(DataError, match="'tumor' has the label 2 in a and 3 in b: give"):
        check_value_names([("a", {1: "pancreas", 2: "tumor"}), ("b", {3: "tumor"})])


def test_values_are_named_by_segmentations_alone(tmp_path: Path) -> None:
    write_series(tmp_path / "P1", STANDARD)
    (volume,) = find_volumes(tmp_path / "P1").volumes
    segmentation = write_segmentation(tmp_path / "seg.dcm", volume)
    assert segmentation.value_names() == {1: "one", 2: "two"}
    edit_file(tmp_path / "seg.dcm", SegmentSequence=None)
    with pytest.raises(DataError, match=r"the segments of .*seg\.dcm cannot be read"):
        segmentation.value_names()
    (labels,) = write_labels(tmp_path, "P1")
    assert labels.value_names() == {}
    labels.path.unlink()
    with pytest.raises(DataError, match=r"P1\.nii\.gz cannot be read: .*No such file"):
        labels.digest()
