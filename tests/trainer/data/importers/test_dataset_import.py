"""A tree as NIH Pancreas-CT becomes a dataset that training accepts, in parallel and resumably."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

from contract.config import Data
from contract.errors import DataError, UserError
from contract.imaging.dicom_seg import encode_segmentation
from contract.imaging.volume_files import find_volumes
from contract.storage import LocalStorage, Storage, open_storage
from tests import processes
from tests.volumes import (
    BIRTH_DATE,
    PATIENT_ID,
    edit_file,
    label_array,
    reorder,
    standard_labels,
    standard_volume,
    write_nifti,
    write_series,
)
from tests.waiting import HANG_TIMEOUT_S
from trainer.__main__ import app
from trainer.data.dataset_index import prepare_dataset
from trainer.data.importers.dataset_import import (
    ImportResult,
    plan_import,
    read_volume_records,
    run_import,
)
from trainer.data.importers.patients import PatientRule
from trainer.data.importers.slice_files import ImportOptions


def write_tree(folder: Path, patients: int) -> list[list[Path]]:
    """CT/PANCREAS_0001/study/series and labels/label0001.nii.gz, whose rows are flipped.

    Returns the files of each series in the order of the slices.
    """
    series = []
    for number in range(1, patients + 1):
        name = f"PANCREAS_{number:04d}"
        volume = reorder(standard_volume(seed=number), (0, 1, 2), (number == 2, False, False))
        series.append(
            write_series(
                folder / f"CT/{name}/study/series", volume, PatientID=f"{PATIENT_ID}{number}"
            )
        )
        labels = reorder(standard_labels(), (0, 1, 2), (False, True, False))
        write_nifti(folder / f"labels/label{number:04d}.nii.gz", labels)
    return series


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["import", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def assert_absent(text: str, output: Path) -> None:
    """No name and no content of a file has a text; TIFF and PNG are searched decompressed."""
    for file in (each for each in output.rglob("*") if each.is_file()):
        contents = [file.read_bytes(), file.name.encode()]
        if file.suffix in (".tif", ".png"):
            with Image.open(file) as image:
                contents += [image.tobytes(), str(image.info).encode()]
                contents.append(str(dict(image.getexif())).encode())
        for content in contents:
            assert text.lower().encode() not in content.lower(), file


def import_tree(folder: Path, output: Storage) -> ImportResult:
    tasks, result = plan_import(
        [folder / "CT"], [folder / "labels"], output, PatientRule(), ImportOptions()
    )
    run_import(tasks, result, output)
    return result


def test_a_tree_becomes_a_dataset_that_can_be_prepared(tmp_path: Path) -> None:
    """Five volumes are imported by two processes."""
    write_tree(tmp_path, 5)
    output = tmp_path / "dataset"
    code, printed, _ = run(tmp_path / "CT", output, "--labels", tmp_path / "labels")
    assert code == 0
    assert printed.splitlines() == [
        "patients: 5",
        "volumes: 5",
        "slices: 25",
        "labels: 1, 2",
        f"dataset: {output}",
    ]
    manifest = json.loads((output / "volumes.json").read_text())
    assert [each["patient"] for each in manifest["volumes"]] == [
        f"PANCREAS_{number:04d}" for number in range(1, 6)
    ]
    data = Data(
        source="folder", root=str(output), layout="unsplit", mask_threshold=0, test_fraction=0.3
    )
    dataset = prepare_dataset(data, 0, LocalStorage(tmp_path / "storage"))
    assert len(dataset.slices) == 25
    assert {each.patient for each in dataset.slices} == {
        f"PANCREAS_{number:04d}" for number in range(1, 6)
    }
    # The texts of the DICOM headers are not in any file or name.
    (source, *_) = (tmp_path / "CT").rglob("*.dcm")
    for element in pydicom.dcmread(source):
        if element.VR in ("PN", "LO", "SH", "UI", "DA", "TM") and len(str(element.value)) > 3:
            assert str(element.value).lower().encode() in source.read_bytes().lower()
            assert_absent(str(element.value), output)
    for text in ("doe", "jane", BIRTH_DATE, PATIENT_ID):
        assert_absent(text, output)

    (output / "images/PANCREAS_0002-0001.tif").unlink()
    code, printed, _ = run(tmp_path / "CT", output, "--labels", tmp_path / "labels")
    assert code == 0
    assert printed.startswith("4 of 5 volumes exist already: skipped\n")
    assert json.loads((output / "volumes.json").read_text()) == manifest


def test_volumes_that_cannot_be_imported_do_not_stop_the_others(tmp_path: Path) -> None:
    series = write_tree(tmp_path, 7)
    series[1][2].unlink()
    (tmp_path / "labels/label0003.nii.gz").unlink()
    truncated = series[3][0]
    truncated.write_bytes(truncated.read_bytes()[:-50])
    code, printed, errors = run(
        tmp_path / "CT", tmp_path / "dataset", "--labels", tmp_path / "labels"
    )
    assert code == 1
    assert "patients: 4\n" in printed
    assert "volumes without labels: 1, such as " in printed
    messages = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(messages) == 2
    assert "PANCREAS_0002/study/series has a gap of 5 mm" in messages[0]
    assert f"{truncated} cannot be decoded" in messages[1]
    manifest = json.loads((tmp_path / "dataset/volumes.json").read_text())
    assert [each["name"] for each in manifest["volumes"]] == [
        f"PANCREAS_{number:04d}" for number in (1, 5, 6, 7)
    ]


class _Exit:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


def test_a_killed_process_is_explained(tmp_path: Path) -> None:
    write_tree(tmp_path, 5)
    output = LocalStorage(tmp_path / "dataset")
    tasks, result = plan_import(
        [tmp_path / "CT"], [tmp_path / "labels"], output, PatientRule(), ImportOptions()
    )
    exiting: Any = _Exit()
    tasks[0] = replace(tasks[0], output=exiting)
    with pytest.raises(UserError, match="a process of the import was killed"):
        run_import(tasks, result, output)
    assert output.exists("volumes.json")


def workers_of(process: int) -> list[Path]:
    folders = [Path(f"/proc/{each}") for each in processes.titled(sys.executable, process)]
    return [
        each for each in folders if b"--multiprocessing-fork" in (each / "cmdline").read_bytes()
    ]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_import(sent: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of the terminal, also those that are still starting."""
    write_tree(tmp_path, 5)
    output = tmp_path / "dataset"
    command = [sys.executable, "-m", "trainer", "import", str(tmp_path / "CT"), str(output)]
    process = subprocess.Popen(
        [*command, "--labels", str(tmp_path / "labels")],
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    while len(workers_of(process.pid)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
    # The pipe is closed when the last process that can write to it has ended.
    _, errors = process.communicate(timeout=HANG_TIMEOUT_S)
    assert process.returncode != 0
    # An interpreter that is still starting when its parent is killed prints a traceback of Python.
    if sent == signal.SIGINT:
        assert "Traceback" not in errors
        records = {path.stem for path in output.glob("volumes/*.json")}
        assert set(read_volume_records(LocalStorage(output))) == records


def test_a_dataset_can_be_in_an_object_store(tmp_path: Path, s3: str) -> None:
    write_tree(tmp_path, 1)
    output = open_storage(f"{s3}/dataset")
    assert import_tree(tmp_path, output).records[0].slices == 5
    assert output.exists("volumes.json")
    again = import_tree(tmp_path, output)
    assert (again.skipped, again.failures) == (1, {})


def test_segmentations_next_to_their_series_need_no_option(tmp_path: Path) -> None:
    write_series(tmp_path / "CT/P1/series", standard_volume())
    (volume,) = find_volumes(tmp_path / "CT/P1").volumes
    assert volume.series
    content = encode_segmentation(volume.series, label_array(), ("one", "two"))
    (tmp_path / "CT/P1/seg.dcm").write_bytes(content)
    output = LocalStorage(tmp_path / "dataset")
    tasks, result = plan_import([tmp_path / "CT/P1"], [], output, PatientRule(), ImportOptions())
    run_import(tasks, result, output)
    (record,) = result.records
    values, counts = np.unique(label_array(), return_counts=True)
    assert record.labels == dict(zip(values[1:].tolist(), counts[1:].tolist(), strict=True))


def write_segmented(folder: Path, name: str, classes: dict[str, int], seed: int) -> None:
    """A series with a segmentation; classes: the number of each segment in label_array."""
    write_series(folder / name / "series", standard_volume(seed=seed), PatientID=f"MRN{name}")
    (volume,) = find_volumes(folder / name).volumes
    assert volume.series
    numbers = np.array([0, *(classes[each] for each in ("one", "two"))], np.uint8)
    content = encode_segmentation(
        volume.series, numbers[label_array()], sorted(classes, key=classes.__getitem__)
    )
    (folder / name / "seg.dcm").write_bytes(content)


def test_segments_have_the_same_names_in_all_volumes(tmp_path: Path) -> None:
    classes = {"one": 1, "two": 2}
    write_segmented(tmp_path / "A", "P1", classes, 1)
    write_segmented(tmp_path / "A", "P2", classes, 2)
    write_segmented(tmp_path / "B", "P3", {"one": 2, "two": 1}, 3)
    with pytest.raises(DataError, match=r"the label 1 is 'two' in .*P3/seg\.dcm and 'one' in .*P1"):
        run(tmp_path / "A", tmp_path / "B", tmp_path / "out")
    code, printed, _ = run(tmp_path / "A", tmp_path / "out")
    assert (code, printed.splitlines()[3]) == (0, "labels: 1 one, 2 two")
    manifest = json.loads((tmp_path / "out/volumes.json").read_text())
    assert manifest["volumes"][0]["label_names"] == {"1": "one", "2": "two"}
    with pytest.raises(DataError, match=r"the label 1 is 'one' in .*/volumes/P1\.json and 'two'"):
        run(tmp_path / "B", tmp_path / "out")
    # The labels of all volumes may be replaced together.
    for path in (tmp_path / "A").glob("*/seg.dcm"):
        dataset = pydicom.dcmread(path)
        for segment, label in zip(dataset.SegmentSequence, ("two", "one"), strict=True):
            segment.SegmentLabel = label
        dataset.save_as(path)
    code, printed, _ = run(tmp_path / "A", tmp_path / "out")
    assert (code, printed.splitlines()[3]) == (0, "labels: 1 two, 2 one")


def test_an_error_of_any_type_is_that_of_its_volume(tmp_path: Path) -> None:
    """A value that pydicom cannot process, and an error of the code."""
    series = write_tree(tmp_path, 3)
    edit_file(series[0][0], RescaleSlope="")
    output = LocalStorage(tmp_path / "dataset")
    tasks, result = plan_import(
        [tmp_path / "CT"], [tmp_path / "labels"], output, PatientRule(), ImportOptions()
    )
    invalid: Any = None
    tasks[1] = replace(tasks[1], options=invalid)
    run_import(tasks, result, output)
    assert [record.name for record in result.records] == ["PANCREAS_0003"]
    first, second = result.failures.values()
    assert "PANCREAS_0001" in first
    assert "PANCREAS_0002/study/series cannot be imported (AttributeError: " in second
    assert list(read_volume_records(output)) == ["PANCREAS_0003"]


def test_images_and_labels_in_one_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_nifti(tmp_path / f"task/imagesTr/{name}.nii.gz", standard_volume())
        write_nifti(tmp_path / f"task/labelsTr/{name}.nii.gz", standard_labels())
    code, printed, _ = run(
        *(tmp_path / "task", tmp_path / "out", "--labels", tmp_path / "task/labelsTr"),
        *("--window", -160, 240),
    )
    assert (code, printed.splitlines()[1]) == (0, "volumes: 2")


def test_wrong_usage_is_explained(tmp_path: Path) -> None:
    write_tree(tmp_path, 1)
    for arguments, message in (
        ([tmp_path / "CT", tmp_path / "out"], "have no labels: name the folder of the label files"),
        ([tmp_path / "nowhere", tmp_path / "out"], "there is no file or folder"),
        ([tmp_path / "CT", tmp_path / "CT/out"], "is inside"),
    ):
        with pytest.raises(DataError, match=message):
            run(*arguments)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no DICOM series and no NIfTI file"):
        run(tmp_path / "empty", tmp_path / "out")
    code, _, errors = run(tmp_path / "CT", tmp_path / "out", "--window", 100, -100)
    assert (code, "LOW must be below HIGH" in errors) == (2, True)
