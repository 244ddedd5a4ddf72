"""Neighbouring slices from training to masks, on slices whose mask only the next slice shows."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from contract import bundle
from contract.config import Config
from contract.storage import LocalStorage, open_storage
from trainer.data.dataset_index import Dataset, prepare_dataset
from trainer.evaluation.evaluate import evaluate
from trainer.training import train_loop
from trainer.training.finalize import finalize_run
from trainer.training.run_store import create_run, run_storage

SIDE, SLICES = 32, 8
PATIENTS = {"train": ("A", "B", "C", "D"), "valid": ("E",), "test": ("F", "G")}


def draw_series(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Slices with a bright square each, and masks of the square of the next: [SLICES, SIDE, SIDE].

    The mask of the last slice is its own square, because that slice is repeated.
    """
    squares = np.zeros((SLICES, SIDE, SIDE), np.uint8)
    for square in squares:
        top, left = rng.integers(2, SIDE - 12, 2)
        square[top : top + 10, left : left + 10] = 255
    images = np.where(squares > 0, 200.0, 60.0) + rng.normal(0, 8, squares.shape)
    return images.clip(0, 255).astype(np.uint8), squares[[*range(1, SLICES), SLICES - 1]]


def write_slices(root: Path) -> None:
    """A series of each patient, and another of the test patients that is not a neighbour of it."""
    rng = np.random.default_rng(0)
    for split, patients in PATIENTS.items():
        for name in (f"{patient}{series}" for patient in patients for series in ("", "-crop40")):
            for kind, pixels in zip(("images", "masks"), draw_series(rng), strict=True):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                for number, each in enumerate(pixels):
                    assert cv2.imwrite(str(root / split / kind / f"{name}-{number:04d}.png"), each)


@dataclass(frozen=True)
class Trained:
    """A network that sees the slices before and after a slice, and its slices."""

    config: Config
    dataset: Dataset
    bundle: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("neighbours")
    write_slices(root / "slices")
    config = Config.model_validate(
        {
            "storage": {"root": str(root / "store")},
            "data": {"source": "folder", "root": str(root / "slices"), "neighbours": 1},
            "network": {"image_size": SIDE, "num_layers": 2, "base_filters": 8},
            "train": {
                "num_workers": 1,
                "epochs": 4,
                "steps_per_epoch": 30,
                "batch_size": 8,
                "learning_rate": 0.01,
                "preview_images": 2,
                "precision": "float32",
            },
        }
    )
    dataset = prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
    run = run_storage(config)
    create_run(run, config, dataset)
    with pytest.MonkeyPatch.context() as patch:
        # TensorFlow is initialized already, after which its threads cannot be configured.
        patch.setattr(train_loop, "configure_process", lambda train: None)
        history = train_loop.train(config, dataset, run, train_loop.WorkerContext())
    result = finalize_run(run, config, history, None)
    return Trained(config, dataset, Path(result.bundle))


def test_the_evaluation_finds_what_only_the_next_slice_shows(
    trained: Trained, tmp_path: Path
) -> None:
    assert bundle.verify(trained.bundle).neighbours == 1
    destination, config = LocalStorage(tmp_path), trained.config
    result = evaluate(
        trained.bundle, trained.dataset, "test", config.data, config.predict, destination
    )
    dice = result.summary_of("dice").min
    assert dice is not None
    assert dice > 0.8
    assert destination.exists("worst.png")
