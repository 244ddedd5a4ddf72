"""Prediction of files: complete, resumable, tolerant of damaged files, and scored by Dice."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from contract.confusion import confusion_counts
from contract.errors import DataError
from contract.imaging.decode import decode_mask
from contract.imaging.encode import decode_png, encode_stack
from contract.imaging.segmentation_class import single_foreground
from contract.registry import Registry
from contract.storage import LocalStorage, Storage, open_storage
from inference.batch.predict_files import OutputFiles, create_job, predict_files, resume_keys
from inference.predictor import Predictor, load_predictor
from tests.waiting import HANG_TIMEOUT_S

MASKS = OutputFiles(single_foreground(), (0.0, 255.0))
OVERLAYS = OutputFiles(single_foreground(), (0.0, 255.0), overlays=True)

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def predictor(bright_bundle: LocalStorage) -> Predictor:
    return load_predictor(bright_bundle)


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Five slices of two sizes and two patients, one of them in a subfolder."""
    folder = tmp_path / "slices"
    (folder / "subfolder").mkdir(parents=True)
    for number in range(5):
        image = np.full((40 + 20 * (number % 2), 50), 20, np.uint8)
        image[10 : 20 + number, 10:30] = 220
        name = f"P{number % 2}-{number}{'.png' if number else '.jpg'}"
        cv2.imwrite(str(folder / ("subfolder" if number == 4 else "") / name), image)
    return folder


def run_predict(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inference", "predict", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
        check=False,
    )


def read_table(storage: Storage, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(storage.read(name).decode())))


def write_ground_truth(slices: Path, masks: Path) -> None:
    for file in slices.rglob("*.*"):
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        target = masks / file.relative_to(slices).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), (image > 120).astype(np.uint8) * 255)


def test_predict_writes_masks_overlays_and_dice_and_resumes(
    bright_bundle: LocalStorage, slices: Path, tmp_path: Path
) -> None:
    storage = open_storage(str(tmp_path / "storage"))
    registry = Registry(storage)
    registry.promote("bright", registry.register("bright", bright_bundle.url).version, "production")
    write_ground_truth(slices, tmp_path / "ground_truth")
    arguments = ("bright@production", slices, tmp_path / "out", "--storage", storage.url)
    scoring = (
        "--overlays",
        "--ground-truth",
        tmp_path / "ground_truth",
        "--patient-id-regex",
        r"^P\d",
    )
    first = run_predict(*arguments, *scoring)
    assert first.returncode == 0, first.stderr
    assert "5 masks in" in first.stdout
    assert "mean Dice of 2 patients" in first.stdout
    assert "Traceback" not in first.stderr
    out = open_storage(str(tmp_path / "out"))
    names = {"P0-0", "P1-1", "P0-2", "P1-3", "subfolder/P0-4"}
    images = {f"{prefix}{name}.png" for name in names for prefix in ("", "overlays/")}
    tables = {"prediction.json", "dice.csv", "dice_by_patient.csv"}
    assert {info.key for info in out.list_objects()} == images | tables
    files, patients = read_table(out, "dice.csv"), read_table(out, "dice_by_patient.csv")
    assert {row["file"] for row in files} == {"P0-0.jpg", *(f"{n}.png" for n in names - {"P0-0"})}
    assert [row["patient"] for row in patients] == ["P0", "P1"]
    assert all(float(row["dice"]) > 0.85 for row in files + patients)
    assert json.loads(out.read("prediction.json"))["bundle"] == "bright-0.5"

    out.delete("P1-1.png")
    modified = (tmp_path / "out/P0-0.png").stat().st_mtime_ns
    second = run_predict(*arguments, *scoring)
    assert "4 of 5 masks exist already: skipped" in second.stdout
    assert out.exists("P1-1.png")
    assert (tmp_path / "out/P0-0.png").stat().st_mtime_ns == modified
    assert "mean Dice of 2 patients" in second.stdout


def test_damaged_files_are_reported_and_the_others_predicted(
    bright_bundle: LocalStorage, slices: Path, tmp_path: Path
) -> None:
    (slices / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\ntruncated")
    (slices / "empty.jpg").write_bytes(b"")
    (slices / "notes.txt").write_text("not an image")
    result = run_predict(bright_bundle.url, slices, tmp_path / "out")
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 2
    assert "bad.png" in errors[0]
    assert "empty.jpg" in errors[1]
    assert "5 masks in" in result.stdout


def test_input_can_be_a_single_file(
    predictor: Predictor, bright_bundle: LocalStorage, slices: Path
) -> None:
    job, keys = create_job(str(slices / "P1-1.png"), str(slices.parent / "out"), MASKS)
    assert resume_keys(job, keys, bright_bundle) == ["P1-1.png"]
    assert predict_files(job, predictor, keys, 8) == {}
    image = cv2.imread(str(slices / "P1-1.png"), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    mask = decode_mask(job.output.read("P1-1.png"), "P1-1.png")
    assert confusion_counts(mask, (image > 120).astype(np.uint8)).dice > 0.85


def test_a_mask_may_be_next_to_its_slice_but_not_overwrite_it(slices: Path) -> None:
    job, keys = create_job(str(slices / "P0-0.jpg"), str(slices), OVERLAYS)
    assert keys == ["P0-0.jpg"]
    assert job.output_keys("P0-0.jpg") == {"P0-0.png", "overlays/P0-0.png"}
    with pytest.raises(DataError, match=r"P1-1\.png would be overwritten"):
        create_job(str(slices / "P1-1.png"), str(slices), MASKS)
    (slices / "subfolder").rename(slices / "overlays")
    with pytest.raises(DataError, match=r"P0-4\.png would be overwritten"):
        create_job(str(slices / "overlays"), str(slices), OVERLAYS)


def test_an_engine_error_is_reported_for_each_slice(
    failing_bundle: LocalStorage, slices: Path, tmp_path: Path
) -> None:
    job, keys = create_job(str(slices), str(tmp_path / "out"), MASKS)
    failures = predict_files(job, load_predictor(failing_bundle), keys, 8)
    assert set(failures) == set(keys)
    assert "P1-1.png: TensorFlow cannot process it (InvalidArgumentError)." in failures.values()


def test_output_with_masks_of_another_bundle_is_rejected(
    bright_bundle: LocalStorage, slices: Path, tmp_path: Path
) -> None:
    job, keys = create_job(str(slices), str(tmp_path / "out"), MASKS)
    assert resume_keys(job, keys, bright_bundle) == keys
    record = json.loads(job.output.read("prediction.json"))
    job.output.write("prediction.json", json.dumps({**record, "digest": "another"}).encode())
    with pytest.raises(DataError, match="masks of another bundle"):
        resume_keys(job, keys, bright_bundle)
    job.output.delete("prediction.json")
    job.output.write("P0-2.png", b"mask")
    with pytest.raises(DataError, match=r"contains P0-2\.png, but no record"):
        resume_keys(job, keys, bright_bundle)


def test_invalid_input_and_output_are_rejected(slices: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mask\.png is named like an image: name a folder"):
        create_job(str(slices), str(tmp_path / "mask.png"), MASKS)
    with pytest.raises(DataError, match="is inside INPUT"):
        create_job(str(slices), str(slices / "masks"), MASKS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    for name, message in {
        "empty": "there is no image",
        "nowhere": "nowhere does not exist: give an image, a folder",
        "notes.txt": "notes.txt is not an image: give an image, a folder",
    }.items():
        with pytest.raises(DataError, match=message):
            create_job(str(tmp_path / name), str(tmp_path / "out"), MASKS)
    (slices / "P0-2.bmp").write_bytes((slices / "P0-2.png").read_bytes())
    with pytest.raises(DataError, match=r"P0-2\.bmp and P0-2\.png .* would both become P0-2\.png"):
        create_job(str(slices), str(tmp_path / "out"), MASKS)


def test_missing_ground_truth_is_reported(
    bright_bundle: LocalStorage, slices: Path, tmp_path: Path
) -> None:
    write_ground_truth(slices, tmp_path / "ground_truth")
    (tmp_path / "ground_truth/P0-2.png").unlink()
    cv2.imwrite(str(tmp_path / "ground_truth/P1-1.png"), np.zeros((9, 9), np.uint8))
    result = run_predict(
        bright_bundle.url, slices, tmp_path / "out", "--ground-truth", tmp_path / "ground_truth"
    )
    assert result.returncode == 1
    assert "P0-2.png: there is no ground truth mask P0-2" in result.stderr
    assert "P1-1.png: its ground truth mask has 9 x 9 pixels" in result.stderr
    assert "mean Dice of 3 files" in result.stdout
    assert not (tmp_path / "out/dice_by_patient.csv").exists()


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Slices 1, 2 and 4 of one series and slice 3 of another, each bright at another position."""
    folder = tmp_path / "series"
    (folder / "ct").mkdir(parents=True)
    for index, name in enumerate(("ct/P1-1.png", "ct/P1-2.png", "ct/P1-4.png", "ct/P2-3.png")):
        image = np.full((48, 64), 20, np.uint8)
        image[10:40, 2 + 15 * index : 14 + 15 * index] = 220
        # In color, and with 16 bits.
        image = cv2.merge([image] * 3) if index == 1 else image
        cv2.imwrite(str(folder / name), image.astype(np.uint16) if index == 2 else image)
    return folder


def bright_index(mask: np.ndarray) -> int:
    """Which of the slices of `series` is bright in a mask."""
    return round((float(np.flatnonzero(mask.any(axis=0)).mean()) - 7.5) / 15)


def test_neighbours_are_found_by_name(
    stack_bundle: LocalStorage, series: Path, tmp_path: Path
) -> None:
    result = run_predict(stack_bundle.url, series, tmp_path / "out", "--overlays")
    assert result.returncode == 0, result.stderr
    out = open_storage(str(tmp_path / "out"))
    # Foreground is what is bright in the next slice, if there is one.
    expected = {"ct/P1-1": 1, "ct/P1-2": 1, "ct/P1-4": 2, "ct/P2-3": 3}
    for name, position in expected.items():
        assert bright_index(decode_mask(out.read(f"{name}.png"), name)) == position
    # The overlay shows the slice itself.
    overlay = decode_png(out.read("overlays/ct/P1-1.png"))
    image = cv2.imread(str(series / "ct/P1-1.png"))
    assert image is not None
    assert np.array_equal(overlay[:, :14], image[:, :14])
    out.delete("ct/P1-1.png")
    assert run_predict(stack_bundle.url, series, tmp_path / "out", "--overlays").returncode == 0
    assert bright_index(decode_mask(out.read("ct/P1-1.png"), "P1-1")) == 1


def test_a_single_file_is_a_stack_or_repeated(
    stack_bundle: LocalStorage, series: Path, tmp_path: Path
) -> None:
    predictor = load_predictor(stack_bundle)
    pages = [cv2.imread(str(series / f"ct/P1-{n}.png"), cv2.IMREAD_GRAYSCALE) for n in (1, 2, 2)]
    (series / "stack.tif").write_bytes(encode_stack([page for page in pages if page is not None]))
    for name, position in (("ct/P1-1.png", 0), ("stack.tif", 1)):
        job, keys = create_job(str(series / name), str(tmp_path / "out"), MASKS, neighbours=1)
        assert predict_files(job, predictor, keys, 8) == {}
        assert bright_index(job.read_mask(keys[0])) == position


def test_a_slice_with_a_damaged_neighbour_is_reported(
    stack_bundle: LocalStorage, series: Path, tmp_path: Path
) -> None:
    (series / "ct/P1-2.png").write_bytes(b"damaged")
    small = np.zeros((9, 9), np.uint8)
    cv2.imwrite(str(series / "ct/P2-4.png"), small)
    job, keys = create_job(str(series), str(tmp_path / "out"), MASKS, neighbours=1)
    failures = predict_files(job, load_predictor(stack_bundle), keys, 8)
    assert set(failures) == {"ct/P1-1.png", "ct/P1-2.png", "ct/P2-3.png", "ct/P2-4.png"}
    assert "P1-2.png cannot be decoded" in failures["ct/P1-1.png"]
    assert "P2-4.png has 9 x 9 pixels, but its neighbour" in failures["ct/P2-3.png"]
    assert bright_index(job.read_mask("ct/P1-4.png")) == 2


def test_a_part_of_a_job_has_its_stacks_alone(series: Path, tmp_path: Path) -> None:
    job, keys = create_job(str(series), str(tmp_path / "out"), MASKS, neighbours=1)
    part = job.select(keys[:1])
    assert part.stacks == {"ct/P1-1.png": ("ct/P1-1.png", "ct/P1-1.png", "ct/P1-2.png")}
    image = part.read(keys[0], part.read_slice)
    assert np.array_equal(image, job.read(keys[0], job.read_slice))
    assert image.shape == (48, 64, 3)
