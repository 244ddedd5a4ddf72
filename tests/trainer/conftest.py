"""A bundle and a dataset for callers that evaluates, inspects or reports: real files, made once."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from contract import bundle
from contract.config import Config
from contract.config.loader import to_toml
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.segmentation_class import single_foreground
from contract.storage import LocalStorage
from contract.timestamps import utc_now
from trainer.data.dataset_index import Dataset, prepare_dataset

HEIGHT, WIDTH = 40, 60


class Threshold(tf.Module):
    """A network of one weight: foreground is what is brighter than it."""

    def __init__(self) -> None:
        super().__init__()
        self.level = tf.Variable(tf.constant(127.0))

    def segment(self, slices: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signatures of a bundle: slices [B, H, W, C] to probability and mask."""
        grey = tf.reduce_mean(tf.cast(slices, tf.float32), axis=-1)
        probability = tf.sigmoid((grey - self.level) / 8.0)
        mask = tf.cast(probability > 0.5, tf.uint8)
        return {"probability": tf.expand_dims(probability, -1), "mask": mask}


def box(top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
    """A mask with a rectangle of foreground."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


NOTHING = box(0, 0, 0, 0)
ORGAN = box(10, 20, 10, 30)

# Of each slice: what is bright, and what is truly foreground.
TRAIN = {
    "a-1": (ORGAN, ORGAN),
    "a-2": (ORGAN, ORGAN),
    "b-1": (ORGAN, box(10, 20, 10, 20)),
    "c$-1": (ORGAN, NOTHING),
}
VALID = {"d-1": (ORGAN, ORGAN)}
TEST = {
    "half-1": (ORGAN, ORGAN),
    "half-2": (box(10, 20, 20, 40), ORGAN),
    "invented-1": (ORGAN, NOTHING),
    "missed-1": (NOTHING, ORGAN),
    "quiet-1": (NOTHING, NOTHING),
    "wide-1": (ORGAN, ORGAN),
}


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset and the settings that made it."""

    config: Config
    dataset: Dataset


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A folder of slices of three kinds: grey, RGB (valid) and 16 bits (patient "wide")."""
    root = tmp_path_factory.mktemp("slices")
    for split, slices in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        for name, (bright, target) in slices.items():
            _write_slice(root / split, name, bright, target)
    config = Config().with_values(
        {
            "data.source": "folder",
            "data.root": str(root),
            "storage.root": str(tmp_path_factory.mktemp("storage")),
        }
    )
    storage = LocalStorage(Path(config.storage.root))
    return Prepared(config, prepare_dataset(config.data, config.run.seed, storage))


def _write_slice(
    folder: Path, name: str, bright: NDArray[np.bool_], target: NDArray[np.bool_]
) -> None:
    image = np.where(bright, 200, 40).astype(np.uint8)
    if folder.name == "valid":
        image = cv2.merge([image, image, image])
    if name.startswith("wide"):
        image = np.pad(np.where(bright, 1000, 20), ((0, 10), (0, 0))).astype(np.uint16)
        target = np.pad(target, ((0, 10), (0, 0)))
    # No two slices have equal pixels.
    image[0, 0] = 20 + len(list((folder.parent).glob("*/images/*")))
    for kind, pixels in (("images", image), ("masks", np.where(target, 255, 0).astype(np.uint8))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / kind / f"{name}.png"), pixels)


@pytest.fixture(scope="session")
def thresholding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose network marks what is brighter than 127."""
    folder = tmp_path_factory.mktemp("thresholding")
    network, config = Threshold(), Config()
    segment = tf.function(network.segment)
    signatures = {
        name: segment.get_concrete_function(
            tf.TensorSpec((None, None, None, None), dtype, name="slices")
        )
        for name, dtype in (("serving_default", tf.uint8), ("int32", tf.int32))
    }
    tf.saved_model.save(network, str(folder / "saved_model"), signatures=signatures)
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    np.savez(folder / "weights.npz", level=network.level.numpy())
    metadata = bundle.BundleMetadata(
        created=utc_now(),
        name="thresholding",
        commit="0123456789012345678901234567890123456789",
        machine="a machine",
        fingerprint=config.fingerprint(),
        dataset="0123456789abcdef",
        patients={"train": ("a", "b", "c$"), "valid": ("d",)},
        image_size=(128, 128),
        image_channels=1,
        neighbours=0,
        classes=single_foreground(),
        intensity_scaling=IntensityScaling.from_window(0.0, 255.0),
        class_tolerance=None,
        other_values_are_background=False,
        threshold=0.5,
        metrics={"val_dice_coef": 0.5},
    )
    bundle.write_bundle(folder, LocalStorage(folder), metadata)
    return folder


@pytest.fixture
def unchanged_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undoes what a command changes in its process to silence the libraries."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    with patch.dict(os.environ):
        yield
