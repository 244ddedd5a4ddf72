"""The fingerprint of small datasets of real files."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contract.config import Data
from contract.errors import DataError
from contract.storage import Storage, open_storage
from tests.class_slices import CLASSES, write_class_slices
from tests.slice_folders import SIDE, image_of, mask_of, png, put, put_pool, put_splits
from trainer.data.pairing import Pair
from trainer.planning import fingerprint as fingerprint_module
from trainer.planning.fingerprint import DatasetFingerprint, measure_fingerprint, select_sample


@pytest.fixture
def source(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "slices"))


def measure(source: Storage, **given: Any) -> DatasetFingerprint:
    data = Data.model_validate({"source": "folder", "root": source.url, **given})
    return measure_fingerprint(data, given, 0, source)


def test_a_presplit_dataset(source: Storage) -> None:
    put_splits(source)
    measured = measure(source)
    assert measured.layout == "presplit"
    assert measured.patient_id_regex == "^([^-]+)-"
    assert measured.mask_threshold == 127
    assert measured.slices == {"train": 4, "valid": 4, "test": 4}
    assert measured.patients == {"train": 2, "valid": 2, "test": 2}
    assert (measured.height, measured.width, measured.decoded) == (SIDE, SIDE, 12)
    assert (measured.is_color, measured.is_8_bit) == (False, True)
    assert measured.classes[0].fraction == pytest.approx(3.5 / SIDE)
    assert measured.foreground_slices == 1.0
    assert measured.min_intensity >= 0
    assert measured.foreground is not None
    assert (measured.foreground_rows, measured.foreground_columns) == (
        (0.0, 4 / SIDE),
        (0.0, 1.0),
    )


def test_an_unsplit_dataset_is_split_as_training_will(source: Storage) -> None:
    put_pool(source)
    measured = measure(source)
    assert measured.layout == "unsplit"
    assert measured.patients == {"train": 6, "valid": 2, "test": 2}
    assert measured.slices == {"train": 12, "valid": 4, "test": 4}


def test_sizes_and_hounsfield_units(source: Storage) -> None:
    for index, (height, width) in enumerate([(20, 30), (24, 40), (28, 90)] * 2):
        pixels = np.full((height, width), -1000, np.int16)
        pixels[:10], pixels[:10, ::2] = 50, 90
        mask = np.zeros((height, width), np.uint8)
        mask[:10] = 1
        ok, image = cv2.imencode(".tif", pixels)
        assert ok
        source.write(f"images/P{index // 2}-{index}.tif", image.tobytes())
        source.write(f"masks/P{index // 2}-{index}.png", png(mask))
    measured = measure(source)
    assert measured.mask_threshold == 0
    assert (measured.height, measured.width) == (24, 40)
    assert (measured.max_height, measured.max_width) == (28, 90)
    assert not measured.is_8_bit
    assert (measured.min_intensity, measured.max_intensity) == (-1000, 90)
    assert measured.foreground is not None
    assert measured.foreground.window == (50, 90)


def test_values_of_masks_become_classes(source: Storage) -> None:
    put_splits(source)
    for info in source.list_objects():
        if "masks" in info.key:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[:6], mask[6:8] = 1, 2
            source.write(info.key, png(mask))
    measured = measure(source)
    assert {each.name: each.value for each in measured.classes} == {"class_1": 1, "class_2": 2}
    assert measured.mask_threshold is None
    assert [each.fraction for each in measured.classes] == [6 / SIDE, 2 / SIDE]
    assert not measured.has_class_names


def test_given_classes_in_color(source: Storage, tmp_path: Path) -> None:
    write_class_slices(tmp_path / "slices", size=64)
    measured = measure(source, classes=CLASSES)
    assert [each.name for each in measured.classes] == list(CLASSES)
    assert [each.value for each in measured.classes] == list(CLASSES.values())
    assert measured.mask_threshold is None


def test_large_datasets_are_sampled_evenly(
    source: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_splits(source)
    monkeypatch.setattr(fingerprint_module, "MAX_DECODED", 5)
    measured = measure(source)
    assert measured.decoded == 5
    assert sum(measured.slices.values()) == 12
    pairs = [Pair(str(index), "P", "train", "", "") for index in range(10)]
    assert [pair.name for pair in select_sample(pairs, 4)] == ["0", "2", "5", "7"]
    assert select_sample(pairs, 20) == pairs


def test_what_cannot_be_used_is_named(source: Storage) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*slices: set data\.root"):
        measure(source)
    source.write("notes.txt", b"text")
    with pytest.raises(DataError, match=r"there are no images .*train/images"):
        measure(source)
    for index in range(6):
        source.write(f"images/P{index}-1.png", image_of(f"P{index}-1"))
        source.write(f"images/P{index}-2.png", image_of(f"P{index}-2"))
    with pytest.raises(DataError, match=r"images/P0-1\.png has no mask"):
        measure(source)
    for index in range(6):
        for number in (1, 2):
            source.write(f"masks/P{index}-{number}.png", mask_of(0))
    with pytest.raises(DataError, match=r"none of \d+ masks of the train split has foreground"):
        measure(source)
    source.write("masks/P0-1.png", b"damaged")
    with pytest.raises(DataError, match=r"P0-1\.png"):
        measure(source)


def test_names_without_a_patient_are_an_error_of_an_unsplit_dataset(source: Storage) -> None:
    for index in range(6):
        put(source, "", f"slice{index}")
    with pytest.raises(DataError, match=r"'slice0' is the patient: set data\.patient_id_regex"):
        measure(source)
