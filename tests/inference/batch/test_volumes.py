"""Masks of volumes are where the organ is, as the readers of other projects see it."""

import csv
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from contract.confusion import confusion_counts
from contract.errors import DataError
from contract.imaging.encode import encode_image
from contract.imaging.nifti import read_nifti_labels
from contract.imaging.post_processing import PostProcessing
from contract.imaging.volume import Volume
from contract.imaging.volume_files import find_volumes
from contract.storage import LocalStorage
from inference.__main__ import app
from inference.batch.volumes import create_volume_job, predict_volumes, resume_volumes
from inference.predictor import Predictor, load_predictor
from tests.inference.conftest import IMAGE_SIZE, MakeBundle
from tests.volumes import (
    COLUMN_MM,
    FLIPS,
    ROW_MM,
    SLICE_MM,
    label_array,
    reorder,
    rotate,
    standard_volume,
    write_nifti,
    write_series,
)

# As the network's input, so that no slice is resized.
SHAPE = (6, IMAGE_SIZE, IMAGE_SIZE)
TARGET = label_array(SHAPE) > 0
BRIGHT = Volume(np.where(TARGET, 220, 20).astype(np.int16), standard_volume(SHAPE).affine)


@pytest.fixture(scope="module")
def predictor(bright_bundle: LocalStorage) -> Predictor:
    return load_predictor(bright_bundle)


def run_predict(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def read_table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "volumes.csv").open()))


def dice(mask: np.ndarray, target: np.ndarray) -> float:
    return confusion_counts(mask != 0, target != 0).dice


def test_a_folder_of_nifti_files(bright_bundle: LocalStorage, tmp_path: Path) -> None:
    for number, flips in enumerate(FLIPS):
        write_nifti(tmp_path / f"in/p{number}.nii.gz", reorder(BRIGHT, (2, 0, 1), flips))
    code, printed, _ = run_predict(bright_bundle.url, tmp_path / "in", tmp_path / "out")
    assert code == 0
    assert "8 masks in" in printed
    masks = []
    for number in range(len(FLIPS)):
        image: Any = nibabel.load(tmp_path / f"in/p{number}.nii.gz")
        mask: Any = nibabel.load(tmp_path / f"out/p{number}.nii.gz")
        np.testing.assert_allclose(mask.affine, image.affine)
        assert dice(np.asarray(mask.dataobj), np.asarray(image.dataobj) > 120) > 0.85
        masks.append(np.asarray(nibabel.as_closest_canonical(mask).dataobj))
    # The network has seen the same slices, whatever their order in the file was.
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    ml = float(np.sum(masks[0])) * ROW_MM * COLUMN_MM * SLICE_MM / 1000
    assert [row["patient"] for row in read_table(tmp_path / "out")] == [f"p{n}" for n in range(8)]
    for row in read_table(tmp_path / "out"):
        assert float(row["foreground_ml"]) == pytest.approx(ml, abs=0.001)
        assert row["slices"] == "6"


@pytest.mark.parametrize("flips", FLIPS)
def test_a_segmentation_overlays_its_series_in_highdicom(
    flips: tuple[bool, ...], bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    write_series(tmp_path / "P1", reorder(rotate(BRIGHT, 12.0, 0), (0, 1, 2), flips))
    code, _, _ = run_predict(
        bright_bundle.url, tmp_path / "P1", tmp_path / "out", "--format", "dicom-seg"
    )
    assert code == 0
    slices = [pydicom.dcmread(file) for file in (tmp_path / "P1").iterdir()]
    image: Any = highdicom.get_volume_from_series(slices)
    segmentation: Any = highdicom.seg.segread(tmp_path / "out/P1.dcm")
    assert segmentation.get_segment_description(1).segment_label == "foreground"
    mask = segmentation.get_volume(combine_segments=True).match_geometry(image)
    assert dice(mask.array, image.array > 120) > 0.85


def test_a_series_without_a_segmentation_is_refused_before_its_prediction(
    predictor: Predictor, tmp_path: Path
) -> None:
    write_series(tmp_path / "in/P1", BRIGHT, FrameOfReferenceUID=None)
    job = create_volume_job(str(tmp_path / "in"), str(tmp_path / "out"), "dicom-seg")
    notes: list[str] = []
    failures = predict_volumes(
        job, predictor, ["in"], {}, 4, lambda done, total, note: notes.append(note)
    )
    assert "a DICOM SEG cannot be written for" in failures["in"]
    assert notes == []


def test_a_series_becomes_a_nifti_file_at_its_place(
    predictor: Predictor, bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    oblique = rotate(BRIGHT, 20.0, 0)
    write_series(tmp_path / "P1/series", reorder(oblique, (0, 1, 2), (True, False, False)))
    job = create_volume_job(str(tmp_path / "P1"), str(tmp_path / "out"), "nifti")
    rows, names = resume_volumes(job, bright_bundle)
    progress: list[tuple[int, int | None, str]] = []
    failures = predict_volumes(
        job,
        predictor,
        names,
        rows,
        4,
        lambda done, total, note: progress.append((done, total, note)),
    )
    assert failures == {}
    assert progress == [(4, 6, "P1"), (6, 6, "P1")]
    mask = read_nifti_labels(tmp_path / "out/P1.nii.gz").to_standard()
    np.testing.assert_allclose(mask.affine, oblique.affine, atol=1e-4)
    assert dice(mask.voxels, TARGET) > 0.85


def test_finished_volumes_are_skipped_and_invalid_ones_reported(
    bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_nifti(tmp_path / f"in/{name}.nii.gz", BRIGHT)
    (tmp_path / "in/c.nii.gz").write_bytes(b"damaged")
    arguments = (bright_bundle.url, tmp_path / "in", tmp_path / "out")
    code, printed, errors = run_predict(*arguments)
    assert code == 1
    assert "2 masks in" in printed
    (error,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "c.nii.gz cannot be read" in error
    table = read_table(tmp_path / "out")
    assert [row["patient"] for row in table] == ["a", "b"]

    (tmp_path / "in/c.nii.gz").unlink()
    (tmp_path / "out/b.nii.gz").unlink()
    modified = (tmp_path / "out/a.nii.gz").stat().st_mtime_ns
    code, printed, _ = run_predict(*arguments)
    assert code == 0
    assert "1 of 2 masks exist already: skipped" in printed
    assert (tmp_path / "out/a.nii.gz").stat().st_mtime_ns == modified
    assert read_table(tmp_path / "out") == table


def test_several_series_in_one_folder_have_different_masks(tmp_path: Path) -> None:
    for name in ("venous", "arterial"):
        write_series(tmp_path / f"P1/{name}", BRIGHT)
    volumes = find_volumes(tmp_path).volumes
    assert [volume.name for volume in volumes] == ["P1", "P1"]
    job = create_volume_job(str(tmp_path), str(tmp_path.parent / "elsewhere"), "nifti")
    assert list(job.volumes) == ["P1", "P1-v2"]


def test_a_numbered_name_is_not_that_of_another_volume(tmp_path: Path) -> None:
    for name in ("a/P1", "b/P1", "c/P1-v2", "d/P1"):
        write_nifti(tmp_path / f"in/{name}.nii.gz", BRIGHT)
    job = create_volume_job(str(tmp_path / "in"), str(tmp_path / "out"), "nifti")
    paths = {name: volume.path for name, volume in job.volumes.items()}
    assert paths == {
        "P1": "a/P1.nii.gz",
        "P1-v3": "b/P1.nii.gz",
        "P1-v2": "c/P1-v2.nii.gz",
        "P1-v4": "d/P1.nii.gz",
    }


def test_the_mask_of_another_volume_with_the_same_name_is_not_resumed(
    bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    write_nifti(tmp_path / "a/P1.nii.gz", BRIGHT)
    write_nifti(tmp_path / "b/P1.nii.gz", Volume(BRIGHT.voxels[::-1], BRIGHT.affine))
    assert run_predict(bright_bundle.url, tmp_path / "a", tmp_path / "out")[0] == 0
    expected = r"out/P1.nii.gz is the mask of another volume than .*b/P1.nii.gz: choose another"
    with pytest.raises(DataError, match=expected):
        run_predict(bright_bundle.url, tmp_path / "b", tmp_path / "out")
    # The user may replace it.
    (tmp_path / "out/P1.nii.gz").unlink()
    assert run_predict(bright_bundle.url, tmp_path / "b", tmp_path / "out")[0] == 0
    (row,) = read_table(tmp_path / "out")
    assert row["sha256"] == find_volumes(tmp_path / "b").volumes[0].digest()


def test_the_table_keeps_the_volumes_of_an_earlier_prediction(
    bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        nifti = write_nifti(tmp_path / f"in/{name}.nii.gz", BRIGHT)
        assert run_predict(bright_bundle.url, nifti, tmp_path / "out")[0] == 0
    assert [row["patient"] for row in read_table(tmp_path / "out")] == ["a", "b"]
    _, printed, _ = run_predict(bright_bundle.url, tmp_path / "in", tmp_path / "out")
    assert "2 of 2 masks exist already: skipped" in printed


def test_an_engine_error_is_reported(failing_bundle: LocalStorage, tmp_path: Path) -> None:
    write_nifti(tmp_path / "in/a.nii.gz", BRIGHT)
    code, _, errors = run_predict(failing_bundle.url, tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert "error: a: TensorFlow cannot process it (InvalidArgumentError)." in errors


def test_wrong_usage_is_explained(bright_bundle: LocalStorage, tmp_path: Path) -> None:
    nifti = write_nifti(tmp_path / "in/a.nii.gz", BRIGHT)
    arguments = (bright_bundle.url, nifti, tmp_path / "out")
    for option in (["--overlays"], ["--ground-truth", "masks"], ["--cluster"]):
        code, _, errors = run_predict(*arguments, *option)
        assert (code, f"{option[0]} is for slices" in errors) == (2, True)
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices/a.png").write_bytes(b"")
    code, _, errors = run_predict(
        bright_bundle.url, tmp_path / "slices", tmp_path / "out", "--format", "dicom-seg"
    )
    assert (code, "--format is for volumes" in errors) == (2, True)
    with pytest.raises(DataError, match=r"a\.nii\.gz is not a DICOM series"):
        create_volume_job(str(nifti), str(tmp_path / "out"), "dicom-seg")
    with pytest.raises(DataError, match="is inside INPUT"):
        create_volume_job(str(nifti.parent), str(nifti.parent / "out"), "nifti")
    with pytest.raises(DataError, match="is named like a NIfTI file: name a folder"):
        create_volume_job(str(nifti), str(tmp_path / "mask.nii.gz"), "nifti")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no DICOM series and no NIfTI file"):
        create_volume_job(str(tmp_path / "empty"), str(tmp_path / "out"), "nifti")


def test_a_damaged_table_is_named(bright_bundle: LocalStorage, tmp_path: Path) -> None:
    write_nifti(tmp_path / "in/a.nii.gz", BRIGHT)
    job = create_volume_job(str(tmp_path / "in"), str(tmp_path / "out"), "nifti")
    resume_volumes(job, bright_bundle)
    job.output.write("volumes.csv", b"patient,slices\na,many\n")
    with pytest.raises(DataError, match=r"volumes\.csv is damaged: delete it"):
        resume_volumes(job, bright_bundle)


def test_the_neighbours_of_a_slice_are_those_of_the_volume(
    stack_bundle: LocalStorage, predictor: Predictor, tmp_path: Path
) -> None:
    shifted = np.zeros(SHAPE, bool)
    for index, each in enumerate(shifted):
        each[8:24, 3 + 4 * index : 9 + 4 * index] = True
    volume = Volume(np.where(shifted, 220, 20).astype(np.int16), BRIGHT.affine)
    for flips in ((False, False, False), (True, True, False)):
        write_nifti(tmp_path / "in/p.nii.gz", reorder(volume, (2, 0, 1), flips))
        masks = []
        for name, each in (("alone", predictor), ("stack", load_predictor(stack_bundle))):
            job = create_volume_job(
                str(tmp_path / "in"), str(tmp_path / f"{name}-{flips}"), "nifti"
            )
            assert predict_volumes(job, each, ["p"], {}, 4) == {}
            path = tmp_path / f"{name}-{flips}/p.nii.gz"
            labels = read_nifti_labels(path)
            masks.append(labels.to_standard().voxels)
        alone, stacked = masks
        # Foreground is what is bright in the next slice, and the last slice is repeated.
        assert np.array_equal(stacked, alone[[1, 2, 3, 4, 5, 5]])
        assert dice(alone, shifted) > 0.8


def test_the_largest_part_of_a_patient_is_that_of_the_volume(
    make_bundle: MakeBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A box through four slices, and a larger one in one slice; files of slices keep both."""
    voxels = np.full(SHAPE, 20, np.int16)
    voxels[:4, 4:12, 4:12] = 220
    voxels[5, 16:28, 16:28] = 220
    affine = standard_volume(SHAPE).affine
    write_nifti(tmp_path / "in/p.nii.gz", Volume(voxels, affine))
    bundle = make_bundle(post_processing=PostProcessing(largest_component="patient"))
    assert run_predict(bundle.url, tmp_path / "in", tmp_path / "out")[0] == 0
    assert caplog.text == ""
    mask = read_nifti_labels(tmp_path / "out/p.nii.gz").to_standard().voxels
    assert (mask.any(axis=(1, 2)) == [True] * 4 + [False] * 2).all()
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices/1.png").write_bytes(encode_image(voxels[5][..., None].astype(np.uint8)))
    assert run_predict(bundle.url, tmp_path / "slices", tmp_path / "masks")[0] == 0
    assert "this is not applied to image files" in caplog.text
