"""Neighbouring slices from training to masks, on slices whose mask only the next slice shows.

TensorFlow evaluates a bundle, OpenVINO predicts: their masks may differ in single pixels whose
probability is 0.5.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from contract import bundle
from contract.config import Config
from contract.confusion import confusion_counts
from contract.imaging.decode import decode_mask
from contract.imaging.nifti import read_nifti_labels
from contract.imaging.segmentation_class import single_foreground
from contract.imaging.volume import Volume
from contract.storage import LocalStorage, open_storage
from inference.batch.predict_files import OutputFiles, create_job, predict_files
from inference.batch.volumes import create_volume_job, predict_volumes
from inference.predictor import load_predictor
from tests.volumes import write_nifti
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
        trained.bundle,
        trained.dataset,
        "test",
        config.data,
        config.predict,
        destination,
        save_masks=True,
    )
    dice = result.summary_of("dice").min
    assert dice is not None
    assert dice > 0.8
    assert destination.exists("worst.png")

    bundle_storage, images = LocalStorage(trained.bundle), f"{trained.dataset.root}/test/images"
    job, keys = create_job(
        images,
        str(tmp_path / "files"),
        OutputFiles(single_foreground(), (0.0, 255.0)),
        neighbours=1,
    )
    predictor = load_predictor(bundle_storage, gpu=False)
    assert predictor.engine.name == "OpenVINO"
    assert predict_files(job, predictor, keys, batch_size=5) == {}
    assert len(keys) == 2 * 2 * SLICES
    for key in keys:
        evaluated = decode_mask(destination.read(f"masks/{key}"), key) > 0
        assert (evaluated == (job.read_mask(key) > 0)).mean() > 0.995


def test_volumes_and_arrays_are_predicted_like_files(trained: Trained, tmp_path: Path) -> None:
    predictor = load_predictor(LocalStorage(trained.bundle), gpu=False)
    images, targets = draw_series(np.random.default_rng(1))
    folder = tmp_path / "in/series"
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"P-{number}.png"), image)
    job, keys = create_job(
        str(folder),
        str(tmp_path / "files"),
        OutputFiles(single_foreground(), (0.0, 255.0)),
        neighbours=1,
    )
    assert predict_files(job, predictor, keys, batch_size=5) == {}
    expected = np.stack([job.read_mask(key) for key in keys])
    assert confusion_counts(expected, (targets > 0).astype(np.uint8)).dice > 0.8

    padded = images[[0, *range(SLICES), SLICES - 1]]
    stacks = [padded[number : number + 3].transpose(1, 2, 0) for number in range(SLICES)]
    for stack, mask in zip(stacks, expected, strict=True):
        assert np.array_equal(predictor.predict(stack).mask, mask)

    # Slices along z, rows along y, columns along x.
    volume = Volume(images.astype(np.int16), np.eye(4)[[2, 1, 0, 3]])
    write_nifti(tmp_path / "volumes/P.nii.gz", volume)
    volume_job = create_volume_job(str(tmp_path / "volumes"), str(tmp_path / "out"), "nifti")
    assert predict_volumes(volume_job, predictor, ["P"], {}, batch_size=3) == {}
    labels = read_nifti_labels(tmp_path / "out/P.nii.gz").to_standard().voxels
    assert np.array_equal(labels, expected)


def test_a_slice_without_its_neighbours_does_not_show_its_mask(trained: Trained) -> None:
    predictor = load_predictor(LocalStorage(trained.bundle), gpu=False)
    images, targets = draw_series(np.random.default_rng(1))
    masks = [segmentation.mask for segmentation in predictor.predict_batch(list(images[..., None]))]
    # A repeated slice is its own next slice.
    counts = confusion_counts(np.stack(masks[:-1]), (targets[:-1] > 0).astype(np.uint8))
    assert counts.dice < 0.5
