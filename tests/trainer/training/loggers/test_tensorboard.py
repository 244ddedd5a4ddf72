"""TensorBoard reads the metrics of every epoch from the storage of the run."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import tensorflow as tf

from contract.storage import LocalStorage
from trainer.training.loggers.tensorboard import TensorBoardLogger


def read_scalars(folder: Path) -> Mapping[tuple[str, int], float]:
    """The scalars of all event files of a folder, by name and step."""
    scalars = {}
    for file in folder.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                scalars[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return scalars


def test_every_metric_of_an_epoch_is_a_scalar_at_its_step(tmp_path: Path) -> None:
    logger = TensorBoardLogger(LocalStorage(tmp_path))
    logger.log_epoch({"epoch": 1.0, "loss": 0.5, "val_dice_coef": 0.25})
    # Stored after each epoch, so that a killed run can be viewed too.
    assert read_scalars(tmp_path) == {("loss", 1): 0.5, ("val_dice_coef", 1): 0.25}
    logger.log_epoch({"epoch": 2.0, "loss": 0.125})
    assert read_scalars(tmp_path) == {
        ("loss", 1): 0.5,
        ("val_dice_coef", 1): 0.25,
        ("loss", 2): 0.125,
    }
    logger.close()


def test_a_resumed_run_keeps_the_scalars_of_earlier_epochs(tmp_path: Path) -> None:
    for epoch in (1, 2):
        logger = TensorBoardLogger(LocalStorage(tmp_path))
        logger.log_epoch({"epoch": float(epoch), "loss": epoch / 4})
        logger.close()
    assert read_scalars(tmp_path) == {("loss", 1): 0.25, ("loss", 2): 0.5}


def test_the_temporary_folder_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    logger = TensorBoardLogger(LocalStorage(tmp_path / "storage"))
    logger.log_epoch({"epoch": 1.0, "loss": 0.5})
    assert len(list(temporary.iterdir())) == 1
    logger.close()
    assert list(temporary.iterdir()) == []
