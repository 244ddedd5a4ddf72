"""The cache of resized slices: filled again if it is incomplete; full disks are reported."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from contract.config import UNet
from contract.errors import StorageError
from contract.imaging.decode import read_image
from contract.imaging.encode import encode_image, encode_mask
from contract.storage import open_storage
from trainer.data import cache
from trainer.data.dataset_index import Dataset, SliceRecord, Split


@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
def test_what_the_system_has_cleared_is_made_again(name, prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cached = cache.load_split(prepared.dataset, "valid", prepared.config.network)
    assert cached.images.dtype == cached.masks.dtype == np.uint8
    assert cached.images.shape == (1, 128, 128, 1)
    # A user need not have a name.
    (kept,) = (tmp_path / f"segfleet-slices-{os.getuid()}").glob(f"*/{name}")
    kept.unlink()
    again = cache.load_split(prepared.dataset, "valid", prepared.config.network)
    assert np.array_equal(again.images, cached.images)
    assert np.array_equal(again.masks, cached.masks)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    (tmp_path / "full.npy").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"cannot write .*full\.npy: No space left"):
        cache._save_array(tmp_path / "full.npy", [np.ones((64, 64), np.int16)] * 4, np.uint8)


def test_16_bit_intensities_are_cached_as_they_are(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    slices = open_storage(str(tmp_path / "slices"))
    rng = np.random.default_rng(0)
    for name, low, high in (("a", 0, 65536), ("b", 0, 200)):
        image = rng.integers(low, high, (32, 32), np.uint16)
        slices.write(f"images/{name}.png", encode_image(image))
        slices.write(f"masks/{name}.png", encode_mask(image > 100))
    splits: dict[str, Split] = {"a": "train", "b": "valid"}
    records = tuple(
        SliceRecord(name, name, split, f"images/{name}.png", f"masks/{name}.png", 32, 32, 0.5)
        for name, split in splits.items()
    )
    dataset = Dataset(slices.url, records, "f", 127)
    network = UNet(image_size=32, num_layers=2)
    wide, narrow = (cache.load_split(dataset, split, network) for split in ("train", "valid"))
    assert (wide.images.dtype, narrow.images.dtype) == (np.uint16, np.int16)
    for cached, name in ((wide, "a"), (narrow, "b")):
        np.testing.assert_array_equal(cached.images[0], read_image(slices, f"images/{name}.png"))


def test_values_are_written_as_numpy_reads_them(tmp_path: Path) -> None:
    values = [np.full((2, 3, 1), number, np.int16) for number in range(4)]
    cache._save_array(tmp_path / "values.npy", values, np.uint8)
    read = np.load(tmp_path / "values.npy", mmap_mode="r")
    assert read.dtype == np.uint8
    assert np.array_equal(read, values)
