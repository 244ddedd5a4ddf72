"""The end of a run: the bundle of the best epoch, the tables, and run.json last."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from contract import bundle
from contract.config import Config
from contract.errors import TrainingError
from contract.imaging.encode import decode_png
from contract.imaging.mask_encoding import threshold_encoding
from contract.imaging.segmentation_class import single_foreground
from contract.storage import LocalStorage, Storage
from tests.masks import square
from tests.small import NETWORK, WINDOW
from trainer.data.dataset_index import Dataset, SliceRecord
from trainer.export.saved_model import build_inference_model
from trainer.training import checkpoints, run_store
from trainer.training.finalize import bundle_metadata, finalize_run, save_epoch_comparison
from trainer.training.loggers.history import EpochMetrics
from trainer.training.run_store import RunResult, TrainingDataInfo
from trainer.visualization.image_grid import epoch_comparison, epoch_sheet

CONFIG = Config.model_validate(
    {
        "run": {"name": "demo"},
        "network": NETWORK,
        "train": {"num_workers": 1, "batch_size": 1, "monitor": "val_dice_coef"},
        "predict": {"threshold": 0.4},
    }
)
DATASET = Dataset(
    "/slices",
    (
        SliceRecord("a-1", "a", "train", "i", "m", 32, 32, (0.1,)),
        SliceRecord("b-1", "b", "valid", "i", "m", 32, 32, (0.1,)),
    ),
    "0123456789abcdef",
    threshold_encoding(127),
)
HISTORY: list[EpochMetrics] = [
    {"epoch": 1.0, "loss": 0.9, "val_loss": 0.9, "val_dice_coef": 0.2},
    {"epoch": 2.0, "loss": 0.5, "val_loss": 0.6, "val_dice_coef": 0.7},
    {"epoch": 3.0, "loss": 0.4, "val_loss": 0.7, "val_dice_coef": 0.6},
]


def write_run(run: Storage) -> list[np.ndarray]:
    """A run of three epochs that is not finished; returns the weights of the best epoch."""
    run_store.create_run(run, CONFIG, DATASET)
    weights = build_inference_model(CONFIG.network, 1, 1).get_weights()
    states = [[value + epoch for value in weights] for epoch in (1, 2, 3)]
    for epochs, state in enumerate(states, start=1):
        # Variables of the optimizer follow the weights.
        checkpoint = [*state, np.array(epochs)]
        checkpoints.save_checkpoint(run.child("checkpoints"), checkpoint, HISTORY[:epochs])
    return states[1]


@dataclasses.dataclass(frozen=True)
class Finalized:
    """A finished run, and the weights of its best epoch."""

    run: Storage
    result: RunResult
    weights: list[np.ndarray]


@pytest.fixture(scope="module")
def finalized(tmp_path_factory: pytest.TempPathFactory) -> Finalized:
    run = LocalStorage(tmp_path_factory.mktemp("run"))
    weights = write_run(run)
    return Finalized(run, finalize_run(run, CONFIG, HISTORY, "c0ffee"), weights)


def test_the_bundle_has_the_weights_and_metrics_of_the_best_epoch(finalized: Finalized) -> None:
    manifest = bundle.verify(Path(finalized.result.bundle))
    assert manifest.metrics == finalized.result.best == HISTORY[1]
    with np.load(Path(finalized.result.bundle) / "weights.npz") as file:
        weights = [file[name] for name in sorted(file.files)]
    for exported, expected in zip(weights, finalized.weights, strict=True):
        np.testing.assert_array_equal(exported, expected)


def test_the_result_is_read_again_from_the_run(finalized: Finalized) -> None:
    assert run_store.read_result(finalized.run) == finalized.result
    assert finalized.result.history == tuple(HISTORY)
    record = json.loads(finalized.run.read("run.json"))
    assert (record["commit"], record["fingerprint"]) == ("c0ffee", CONFIG.fingerprint())
    assert record["host_info"]["machine"]


def test_tables_and_curves_have_every_epoch(finalized: Finalized) -> None:
    for name in ("train_metrics.csv", "train_losses.csv"):
        rows = finalized.run.read(name).decode().splitlines()[1:]
        assert [row.split(",")[0] for row in rows] == ["1", "2", "3"]
    for name in ("train_metrics.png", "train_losses.png"):
        assert decode_png(finalized.run.read(name)).shape[2] == 3


def test_a_damaged_best_checkpoint_does_not_finish_the_run(tmp_path: Path) -> None:
    run = LocalStorage(tmp_path)
    write_run(run)
    storage = run.child("checkpoints")
    best = checkpoints.best_checkpoint(checkpoints.list_checkpoints(storage), CONFIG.train)
    storage.write(f"{best.key}/state.npz", b"damaged")
    with pytest.raises(TrainingError, match=f"best checkpoint {best.key} .* delete its folder"):
        finalize_run(run, CONFIG, HISTORY, None)
    assert not run.exists("run.json")
    assert run.child("bundle").list_objects() == []


def test_the_manifest_names_the_run_its_data_and_its_settings() -> None:
    training_data = TrainingDataInfo("0123456789abcdef", {"train": ("a",), "valid": ("b",)}, WINDOW)
    metadata = bundle_metadata(CONFIG, training_data, HISTORY[1], "c0ffee")
    assert (metadata.name, metadata.commit) == ("demo", "c0ffee")
    assert (metadata.dataset, metadata.patients) == (
        training_data.fingerprint,
        training_data.patients,
    )
    assert metadata.intensity_scaling == WINDOW
    assert metadata.fingerprint == CONFIG.fingerprint()
    assert (metadata.image_size, metadata.image_channels, metadata.threshold) == ((32, 32), 1, 0.4)
    assert metadata.metrics == HISTORY[1]


def preview(predicted: bool) -> bytes:
    """The preview of an epoch that predicts a square, or nothing."""
    mask = square(32, 8, 8, 16)
    image = np.full((32, 32, 1), 0.5, np.float32)
    return epoch_sheet([image], [mask * np.uint8(predicted)], [mask], ["a-1"], single_foreground())


def test_the_previews_of_the_epochs_are_compared(tmp_path: Path) -> None:
    run = LocalStorage(tmp_path)
    sheets = {2: preview(predicted=False), 11: preview(predicted=True)}
    for epoch, sheet in sheets.items():
        run.write(f"previews/epoch-{epoch:04d}.png", sheet)
    # Written by an earlier end of the same run.
    run.write("previews/epochs.png", b"old")
    save_epoch_comparison(run, single_foreground())
    assert run.read("previews/epochs.png") == epoch_comparison(sheets, single_foreground())


def test_a_run_without_previews_has_no_comparison(tmp_path: Path) -> None:
    save_epoch_comparison(LocalStorage(tmp_path), single_foreground())
    assert LocalStorage(tmp_path).list_objects() == []
