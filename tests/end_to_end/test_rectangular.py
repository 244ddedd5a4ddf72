"""A rectangular network from slices to masks: training, bundle, both engines, evaluation."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from contract import bundle
from contract.config import Config
from contract.imaging.decode import read_image
from contract.imaging.encode import decode_png
from contract.storage import LocalStorage, Storage, open_storage
from inference.engines import OpenVinoEngine, TensorFlowEngine
from trainer.data.dataset_index import Dataset, intensity_scaling, prepare_dataset
from trainer.evaluation.evaluate import evaluate
from trainer.training import train_loop
from trainer.training.finalize import finalize_run
from trainer.training.run_store import create_run, run_storage

HEIGHT, WIDTH = 96, 160
PATIENTS = {"train": ("A", "B"), "valid": ("C",), "test": ("D",)}


def draw_slice(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A noisy slice with a bright disc, and the mask of the disc: [HEIGHT, WIDTH]."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    center = int(rng.integers(30, WIDTH - 30)), int(rng.integers(30, HEIGHT - 30))
    cv2.circle(mask, center, int(rng.integers(12, 20)), 255, -1)
    image = np.where(mask > 0, 180.0, 60.0) + rng.normal(0, 10, mask.shape)
    return image.clip(0, 255).astype(np.uint8), mask


def write_slices(root: Path) -> None:
    """Three slices of each patient."""
    rng = np.random.default_rng(0)
    for split, patients in PATIENTS.items():
        for name in (f"{patient}-{number}" for patient in patients for number in range(3)):
            for kind, pixels in zip(("images", "masks"), draw_slice(rng), strict=True):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(root / split / kind / f"{name}.png"), pixels)


def copy_two_slices(root: Path) -> str:
    """A folder of two images, of which one has a mask."""
    images, masks = root / "own" / "images", root / "own" / "masks"
    shutil.copytree(root / "slices" / "test" / "images", images)
    for image in sorted(images.iterdir())[2:]:
        image.unlink()
    masks.mkdir()
    shutil.copy(root / "slices" / "test" / "masks" / min(images.iterdir()).name, masks)
    return str(root / "own")


@dataclass(frozen=True)
class Trained:
    """A finished run and the slices that it was trained on."""

    config: Config
    dataset: Dataset
    run: Storage
    bundle: Path


VARIANTS = {
    "resized": {},
    "sliding window": {"predict.sliding_window": True},
    "foreground": {"data.normalize": "foreground"},
}


@pytest.fixture(scope="module", params=VARIANTS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A network of 96 x 160 pixels, trained in this process."""
    root = tmp_path_factory.mktemp("rectangular")
    write_slices(root / "slices")
    config = Config.model_validate(
        {
            "storage": {"root": str(root / "store")},
            "data": {"source": "folder", "root": str(root / "slices")},
            "network": {"image_size": [HEIGHT, WIDTH], "num_layers": 3, "base_filters": 4},
            "train": {
                "num_workers": 1,
                "epochs": 3,
                "steps_per_epoch": 12,
                "batch_size": 3,
                "learning_rate": 0.01,
                "preview_images": 2,
                "precision": "float32",
            },
        }
    ).with_values(VARIANTS[request.param])
    if request.param == "foreground":
        config = config.with_values({"train.preview_source": copy_two_slices(root)})
    dataset = prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
    run = run_storage(config)
    create_run(run, config, dataset)
    with pytest.MonkeyPatch.context() as patch:
        # TensorFlow is initialized already, after which its threads cannot be configured.
        patch.setattr(train_loop, "configure_process", lambda train: None)
        history = train_loop.train(config, dataset, run, train_loop.WorkerContext())
    result = finalize_run(run, config, history, None)
    return Trained(config, dataset, run, Path(result.bundle))


def test_the_bundle_knows_height_and_width(trained: Trained) -> None:
    assert bundle.verify(trained.bundle).image_size == (HEIGHT, WIDTH)


def test_previews_have_the_proportions_of_the_slices(trained: Trained) -> None:
    sheet = decode_png(trained.run.read("previews/epoch-0003.png"))
    # Two tiles whose longer side is 208 pixels, with gaps of 6 pixels.
    assert sheet.shape[1] == 3 * 6 + 2 * 208
    assert sheet.shape[0] < 2 * 125


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (200, 120), (64, 96)])
def test_both_engines_predict_the_same(trained: Trained, shape: tuple[int, int]) -> None:
    slices = np.stack(
        [cv2.resize(draw_slice(np.random.default_rng(n))[0], shape[::-1]) for n in range(2)]
    )[..., None]
    engines = (OpenVinoEngine(trained.bundle, 2), TensorFlowEngine(trained.bundle, 2))
    (probability, mask), (expected, _) = (engine.infer(slices) for engine in engines)
    # Resized intensities are rounded; one that lies between two whole numbers may be rounded
    # either way, which is a tenth of the foreground's standard deviation.
    np.testing.assert_allclose(probability, expected, atol=0.01)
    assert np.abs(probability - expected).mean() < 1e-4
    assert mask.shape == (2, *shape)


def test_inference_measures_what_training_measured(trained: Trained) -> None:
    engine, store = OpenVinoEngine(trained.bundle, 2), open_storage(trained.dataset.root)
    overlap = total = 0.0
    for record in trained.dataset.select("valid"):
        mask = trained.dataset.masks.read(store, record.mask)
        (probability,), _ = engine.infer(read_image(store, record.image)[None])
        overlap += float((mask * probability[..., 0]).sum())
        total += float(mask.sum() + probability.sum())
    expected = bundle.verify(trained.bundle).metrics["val_dice_coef"]
    assert (2 * overlap + 1) / (total + 1) == pytest.approx(expected, abs=1e-4)


def test_the_bundle_stores_its_normalization(trained: Trained) -> None:
    scaling = bundle.verify(trained.bundle).intensity_scaling
    assert scaling == intensity_scaling(trained.dataset, trained.config.data)
    if trained.config.data.normalize == "foreground":
        # Discs of about 180 with a standard deviation of 10.
        assert scaling.mean == pytest.approx(180, abs=2)
        assert scaling.std == pytest.approx(10, abs=1)
        assert 145 < scaling.low < 165
        assert 195 < scaling.high < 215


def test_the_evaluation_finds_the_discs(trained: Trained, tmp_path: Path) -> None:
    config = trained.config
    destination = LocalStorage(tmp_path)
    result = evaluate(
        trained.bundle, trained.dataset, "test", config.data, config.predict, destination
    )
    dice = result.summary_of("dice").mean
    assert dice is not None
    assert dice > 0.8
    assert destination.exists("worst.png")
