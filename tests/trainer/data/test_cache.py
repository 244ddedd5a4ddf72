"""The cache of resized slices: filled again if it is incomplete; full disks are reported."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from contract.errors import StorageError
from trainer.data import cache


@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
def test_what_the_system_has_cleared_is_made_again(name, prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cached = cache.load_split(
        prepared.dataset, "valid", prepared.config.data, prepared.config.network
    )
    assert cached.images.dtype == cached.masks.dtype == np.uint8
    assert cached.images.shape == (1, 128, 128, 1)
    # A user need not have a name.
    (kept,) = (tmp_path / f"segfleet-slices-{os.getuid()}").glob(f"*/{name}")
    kept.unlink()
    again = cache.load_split(
        prepared.dataset, "valid", prepared.config.data, prepared.config.network
    )
    assert np.array_equal(again.images, cached.images)
    assert np.array_equal(again.masks, cached.masks)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    (tmp_path / "full.npy").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"cannot write .*full\.npy: No space left"):
        cache._save_array(tmp_path / "full.npy", [np.ones((64, 64), np.int16)] * 4, np.uint8)


def test_values_are_written_as_numpy_reads_them(tmp_path: Path) -> None:
    values = [np.full((2, 3, 1), number, np.int16) for number in range(4)]
    cache._save_array(tmp_path / "values.npy", values, np.uint8)
    read = np.load(tmp_path / "values.npy", mmap_mode="r")
    assert read.dtype == np.uint8
    assert np.array_equal(read, values)
