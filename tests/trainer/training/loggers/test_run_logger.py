"""After every epoch a run has a checkpoint, complete tables, TensorBoard events and previews."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.config import Train
from contract.imaging.segmentation_class import single_foreground
from contract.storage import LocalStorage, Storage
from tests.histories import history
from tests.masks import square
from trainer.export.weights import ModelState
from trainer.training import checkpoints
from trainer.training.loggers.run_logger import PredictionPreview, RunLogger, write_tables
from trainer.visualization.image_grid import epoch_sheet

TRAIN = Train(keep_checkpoints=1, monitor="val_dice_coef")
MASKS = square(32, 8, 8, 16)[None]
IMAGES = np.full((1, 32, 32, 1), 0.5, np.float32)


def predict_state(
    state: ModelState, images: Sequence[NDArray[np.float32]]
) -> Sequence[NDArray[np.uint8]]:
    """A network whose only weight is the class of every pixel."""
    return [np.full(image.shape[:2], state[0], np.uint8) for image in images]


PREVIEW = PredictionPreview(predict_state, list(IMAGES), list(MASKS), ["a-1"])


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path)


@pytest.fixture
def logger(run: Storage) -> Iterator[RunLogger]:
    logger = RunLogger(run, TRAIN, single_foreground(), PREVIEW)
    yield logger
    logger.close()


def test_an_epoch_is_recorded_in_every_file(run: Storage, logger: RunLogger) -> None:
    logger.log_epoch([np.array(0.4)], history(1))
    latest = checkpoints.load_latest(run.child("checkpoints"))
    assert latest is not None
    assert (latest[0].epochs, latest[1]) == (1, [np.array(0.4)])
    names = {info.key.split(".")[0] for info in run.list_objects() if "/0" not in info.key}
    assert names == {
        "train_metrics",
        "train_losses",
        "tensorboard/events",
        "previews/epoch-0001",
    }


def test_only_the_latest_and_the_best_checkpoints_are_kept(run: Storage, logger: RunLogger) -> None:
    for epochs in range(1, 5):
        logger.log_epoch([np.array(0.4)], history(4)[:epochs])
    kept = checkpoints.list_checkpoints(run.child("checkpoints"))
    assert [checkpoint.epochs for checkpoint in kept] == [4, 3]


def test_a_resumed_run_records_every_epoch_once(run: Storage) -> None:
    for epochs in (1, 2):
        logger = RunLogger(run, TRAIN, single_foreground())
        logger.log_epoch([np.array(0.4)], history(2)[:epochs])
        logger.close()
    rows = run.read("train_losses.csv").decode().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]
    assert run.list_objects("previews") == []


def test_a_preview_shows_the_prediction(run: Storage, logger: RunLogger) -> None:
    logger.log_epoch([np.array(1)], history(1))
    logger.log_epoch([np.array(0)], history(2))
    for name, predictions in (
        ("epoch-0001", np.ones_like(MASKS)),
        ("epoch-0002", np.zeros_like(MASKS)),
    ):
        expected = epoch_sheet(
            list(IMAGES), list(predictions), list(MASKS), ["a-1"], single_foreground()
        )
        assert run.read(f"previews/{name}.png") == expected


def test_a_preview_shows_the_center_of_a_stack() -> None:
    stacks = np.concatenate([IMAGES * 0.0, IMAGES, IMAGES * 2.0], axis=-1)
    preview = PredictionPreview(predict_state, list(stacks), list(MASKS), ["a-1"], stack_size=3)
    expected = PREVIEW.render([np.array(1)], single_foreground())
    assert preview.render([np.array(1)], single_foreground()) == expected


def test_the_tables_have_the_complete_history(run: Storage) -> None:
    write_tables(run, history(3))
    write_tables(run, history(2))
    for name in ("train_metrics.csv", "train_losses.csv"):
        assert len(run.read(name).decode().splitlines()) == 3
