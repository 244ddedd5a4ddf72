"""Checkpoints on real files: what counts, what is skipped, what is kept."""

from pathlib import Path

import numpy as np
import pytest

from contract.config import Train
from contract.errors import StorageError
from contract.storage import Storage, open_storage
from trainer.training import checkpoints
from trainer.training.checkpoints import Checkpoint, EpochMetrics

TRAIN = Train(keep_checkpoints=2, monitor="val_dice_coef")


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def rows(*scores: float) -> list[EpochMetrics]:
    return [{"epoch": n + 1.0, "val_dice_coef": score} for n, score in enumerate(scores)]


def test_a_state_comes_back_as_it_was(store: Storage) -> None:
    state = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)]
    checkpoints.save_checkpoint(store, state, rows(0.1, 0.2))
    read = checkpoints.load_latest(store)
    assert read is not None
    checkpoint, loaded = read
    assert checkpoint.epochs == 2
    assert list(checkpoint.history) == rows(0.1, 0.2)
    assert all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(state, loaded, strict=True)
    )


def test_a_damaged_newest_checkpoint_is_skipped(
    store: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save_checkpoint(store, [np.zeros(3)], rows(0.1))
    newest = checkpoints.save_checkpoint(store, [np.ones(3)], rows(0.1, 0.2))
    data = store.read(f"{newest.key}/state.npz")
    store.write(f"{newest.key}/state.npz", data[:-10])
    read = checkpoints.load_latest(store)
    assert read is not None
    assert read[0].epochs == 1
    assert newest.key in caplog.text


@pytest.mark.parametrize("metadata", [b'{"epochs": 2, "hist', b"", b"\xff", b"[]", b"null", b"{}"])
def test_damaged_metadata_is_skipped(
    store: Storage, metadata: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save_checkpoint(store, [np.zeros(3)], rows(0.1))
    newest = checkpoints.save_checkpoint(store, [np.ones(3)], rows(0.1, 0.2))
    store.write(f"{newest.key}/checkpoint.json", metadata)
    assert [each.epochs for each in checkpoints.list_checkpoints(store)] == [1]
    assert f"checkpoint {newest.key}/checkpoint.json is skipped: " in caplog.text


def test_a_checkpoint_without_its_facts_does_not_count(store: Storage) -> None:
    half = checkpoints.save_checkpoint(store, [np.zeros(3)], rows(0.1))
    store.delete(f"{half.key}/checkpoint.json")
    assert checkpoints.load_latest(store) is None


@pytest.mark.parametrize("name", ["state.npz", "checkpoint.json"])
def test_a_store_that_fails_is_not_taken_for_one_without_checkpoints(
    store: Storage, tmp_path: Path, name: str
) -> None:
    saved = checkpoints.save_checkpoint(store, [np.zeros(3)], rows(0.1))
    (tmp_path / saved.key / name).unlink()
    # A file that is there and whose reading ends in an input/output error.
    (tmp_path / saved.key / name).symlink_to("/proc/self/mem")
    with pytest.raises(StorageError, match=f"cannot read .*{name}"):
        checkpoints.load_latest(store)


def test_tidy_keeps_the_newest_and_the_best(store: Storage) -> None:
    for count in range(1, 6):
        checkpoints.save_checkpoint(store, [np.zeros(1)], rows(0.5, 0.9, 0.1, 0.8, 0.2)[:count])
        checkpoints.delete_old(store, TRAIN)
    assert [one.epochs for one in checkpoints.list_checkpoints(store)] == [5, 4, 2]
    assert len(store.list_objects()) == 6


def test_the_best_by_a_loss_is_the_lowest() -> None:
    losses = [{"epoch": 1.0, "val_loss": 0.3}, {"epoch": 2.0, "val_loss": 0.6}]
    kept = [Checkpoint(str(n), n, tuple(losses[:n]), "") for n in (1, 2)]
    assert checkpoints.best_checkpoint(kept, Train(monitor="val_loss")).epochs == 1
