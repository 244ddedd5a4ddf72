"""A run is continued with the settings and the slices it was started with, or not at all."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contract.config import Config
from contract.errors import DataError, StorageError, TrainingError
from contract.host_info import host_info
from contract.imaging.mask_encoding import threshold_encoding
from contract.storage import Storage, open_storage
from tests.damage import truncate
from trainer.data.dataset_index import Dataset, SliceRecord, Split, intensity_scaling
from trainer.training import checkpoints, run_store

CONFIG = Config().with_values({"train.batch_size": 2})


def case(patient: str, split: Split) -> SliceRecord:
    name = f"{patient}-1"
    return SliceRecord(
        name, patient, split, f"images/{name}.png", f"masks/{name}.png", 64, 64, (0.1,)
    )


SLICES = Dataset(
    "/pool",
    (case("a", "train"), case("b", "train"), case("c", "valid"), case("d", "test")),
    "0123456789abcdef",
    threshold_encoding(127),
)


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def test_a_run_knows_that_it_learns_from(run: Storage) -> None:
    run_store.create_run(run, CONFIG, SLICES)
    known = run_store.read_training_data(run)
    assert known.fingerprint == SLICES.fingerprint
    assert known.patients == {"train": ("a", "b"), "valid": ("c",)}


def test_a_run_stores_the_scaling_of_its_intensities(run: Storage) -> None:
    config = CONFIG.with_values({"data.normalize": "foreground"})
    with pytest.raises(DataError, match="the train split has no foreground"):
        run_store.check_resumable(run, config, SLICES)
    slices = dataclasses.replace(SLICES, foreground_intensities=((80, 1), (120, 1)))
    run_store.create_run(run, config, slices)
    scaling = run_store.read_training_data(run).intensity_scaling
    assert (scaling.mean, scaling.low) == (100.0, pytest.approx(80.2))
    assert scaling == intensity_scaling(slices, config.data)


def an_epoch_is_done(run: Storage) -> None:
    checkpoints.save_checkpoint(
        run.child("checkpoints"), [np.zeros(3)], [{"epoch": 1.0, "val_dice_coef": 0.5}]
    )


def test_a_run_without_an_epoch_is_not_started_again_but_may_be_deleted(run: Storage) -> None:
    run_store.create_run(run, CONFIG, SLICES)
    others = CONFIG.with_values({"train.batch_size": 1, "train.num_workers": 1})
    with pytest.raises(
        TrainingError, match=rf"was 2, now 1.* or delete {run.url}, which contains no"
    ):
        run_store.create_run(run, others, SLICES)
    an_epoch_is_done(run)
    with pytest.raises(TrainingError, match=r"was 2, now 1.* or restore those settings"):
        run_store.create_run(run, others, SLICES)


def test_a_batch_larger_than_the_training_split_is_rejected(run: Storage) -> None:
    large = CONFIG.with_values({"train.batch_size": 100000})
    with pytest.raises(DataError, match=r"batch_size = 100000 .* has 2 slices: set .* at most 2"):
        run_store.create_run(run, large, SLICES)
    assert run.list_objects() == []


def damaged_versions(content: bytes) -> list[bytes]:
    return [truncate(content), b"", b"\xff\xfe\0garbled", b"[]", b"x = 1"]


def check_resumable(run: Storage) -> None:
    run_store.check_resumable(run, CONFIG, SLICES)


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("config.toml", check_resumable),
        ("dataset.json", check_resumable),
        ("run.json", run_store.read_result),
    ],
)
def test_a_damaged_state_file_is_named_with_a_remedy(
    run: Storage, key: str, read: Callable[[Storage], object]
) -> None:
    run_store.create_run(run, CONFIG, SLICES)
    metrics = {"epoch": 1.0, "val_dice_coef": 0.5}
    record = {
        "history": [metrics],
        "best": metrics,
        "commit": None,
        "fingerprint": "f",
        "host_info": host_info(),
    }
    run.write("run.json", json.dumps(record).encode())
    assert run_store.read_result(run) is not None
    for content in damaged_versions(run.read(key)):
        if key == "config.toml" and content == b"":
            continue  # An empty file has the default settings.
        run.write(key, content)
        with pytest.raises(StorageError, match=rf"{re.escape(run.url)}/{key}.*: (restore|delete)"):
            read(run)


def test_the_same_settings_and_slices_continue_a_run(run: Storage) -> None:
    run_store.create_run(run, CONFIG, SLICES)
    an_epoch_is_done(run)
    before = run.list_objects()
    # The same slices may have moved.
    run_store.create_run(run, CONFIG, dataclasses.replace(SLICES, root="s3://bucket/pool"))
    assert run.list_objects() == before


def test_a_run_is_not_continued_on_a_pool_that_was_split_again(run: Storage) -> None:
    run_store.create_run(run, CONFIG, SLICES)
    an_epoch_is_done(run)
    split_again = dataclasses.replace(SLICES, fingerprint="fedcba9876543210")
    with pytest.raises(
        TrainingError, match=r"started with other slices .*run\.name .*splits\.json"
    ):
        run_store.create_run(run, CONFIG, split_again)
    assert run_store.read_training_data(run).fingerprint == SLICES.fingerprint


def test_tiles_of_slices_that_training_shrinks_start_no_run(run: Storage) -> None:
    with pytest.raises(DataError, match=r"images/a-1\.png is 64 x 64"):
        run_store.create_run(run, CONFIG.with_values({"predict.sliding_window": True}), SLICES)
    assert run.list_objects() == []
