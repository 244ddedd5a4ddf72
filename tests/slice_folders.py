"""Small datasets in a store: images and masks of a few patients, in splits or unsplit."""

import cv2
import numpy as np
import pytest

from contract.config import Data
from contract.errors import DataError
from contract.storage import Storage
from trainer.data.dataset_index import SPLITS, prepare_dataset

PATTERN = r"^P\d+"
SIDE = 24


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def image_of(name: str, suffix: str = ".png", side: int = SIDE) -> bytes:
    """A picture that no other name has."""
    draw = np.random.default_rng(list(name.encode()))
    pixels = cv2.GaussianBlur(draw.integers(0, 256, (side, side), np.uint8), (0, 0), 2)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def mask_of(rows: int, value: int = 255) -> bytes:
    """A mask whose first rows are foreground."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:rows] = value
    return png(mask)


def put(storage: Storage, folder: str, name: str, rows: int = 6) -> None:
    storage.write(f"{folder}images/{name}.png", image_of(name))
    storage.write(f"{folder}masks/{name}.png", mask_of(rows))


def put_splits(storage: Storage) -> None:
    """Two patients of two slices in each split."""
    for split, first in zip(SPLITS, (0, 10, 20), strict=True):
        for patient in (first, first + 1):
            for index in range(2):
                put(storage, f"{split}/", f"P{patient:02d}-{index}", rows=3 + index)


def put_pool(storage: Storage, patients: int = 10) -> None:
    for patient in range(patients):
        for index in range(2):
            put(storage, "", f"P{patient:02d}-{index}", rows=1 + patient)


def empty(storage: Storage, folder: str) -> None:
    for entry in storage.list_objects(folder):
        storage.delete(entry.key)


def settings(source: Storage, **changes: object) -> Data:
    return Data.model_validate(
        {"source": "folder", "root": source.url, "patient_id_regex": PATTERN, **changes}
    )


def data_error(source: Storage, home: Storage, **changes: object) -> str:
    """The message with which a dataset is rejected."""
    with pytest.raises(DataError) as error:
        prepare_dataset(settings(source, **changes), 0, home)
    return str(error.value)
