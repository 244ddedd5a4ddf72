"""Checkpoints on real files: what counts, what is passed over, what is kept."""

from pathlib import Path

import numpy as np
import pytest

from contract.config import Train
from contract.errors import StorageError
from contract.storage import Storage, open_storage
from trainer.training import checkpoints
from trainer.training.checkpoints import Checkpoint, Row

TRAIN = Train(keep_checkpoints=2, monitor="val_dice_coef")


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def rows(*scores: float) -> list[Row]:
    return [{"epoch": n + 1.0, "val_dice_coef": score} for n, score in enumerate(scores)]


def test_a_state_comes_back_as_it_was(store: Storage) -> None:
    state = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)]
    checkpoints.save(store, state, rows(0.1, 0.2))
    read = checkpoints.newest(store)
    assert read is not None
    checkpoint, loaded = read
    assert checkpoint.epochs == 2
    assert list(checkpoint.history) == rows(0.1, 0.2)
    assert all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(state, loaded, strict=True)
    )


def test_a_damaged_newest_checkpoint_is_passed_over(
    store: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(store, [np.zeros(3)], rows(0.1))
    newest = checkpoints.save(store, [np.ones(3)], rows(0.1, 0.2))
    data = store.read(f"{newest.place}/state.npz")
    store.write(f"{newest.place}/state.npz", data[:-10])
    read = checkpoints.newest(store)
    assert read is not None
    assert read[0].epochs == 1
    assert newest.place in caplog.text


def test_a_checkpoint_without_its_facts_does_not_count(store: Storage) -> None:
    half = checkpoints.save(store, [np.zeros(3)], rows(0.1))
    store.delete(f"{half.place}/checkpoint.json")
    assert checkpoints.newest(store) is None


@pytest.mark.parametrize("name", ["state.npz", "checkpoint.json"])
def test_a_store_that_fails_is_not_taken_for_one_without_checkpoints(
    store: Storage, tmp_path: Path, name: str
) -> None:
    saved = checkpoints.save(store, [np.zeros(3)], rows(0.1))
    (tmp_path / saved.place / name).unlink()
    # A file that is there and whose reading ends in an input/output error.
    (tmp_path / saved.place / name).symlink_to("/proc/self/mem")
    with pytest.raises(StorageError, match=f"cannot read .*{name}"):
        checkpoints.newest(store)


def test_tidy_keeps_the_newest_and_the_best(store: Storage) -> None:
    for count in range(1, 6):
        checkpoints.save(store, [np.zeros(1)], rows(0.5, 0.9, 0.1, 0.8, 0.2)[:count])
        checkpoints.tidy(store, TRAIN)
    assert [one.epochs for one in checkpoints.found(store)] == [5, 4, 2]
    assert len(store.entries()) == 6


def test_the_best_by_a_loss_is_the_lowest() -> None:
    losses = [{"epoch": 1.0, "val_loss": 0.3}, {"epoch": 2.0, "val_loss": 0.6}]
    kept = [Checkpoint(str(n), n, tuple(losses[:n]), "") for n in (1, 2)]
    assert checkpoints.best(kept, Train(monitor="val_loss")).epochs == 1
