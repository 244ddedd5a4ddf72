"""The cache of resized slices: exact, bounded, filled again if incomplete; full disks."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Data, UNet
from contract.errors import DataError, StorageError
from contract.imaging.arrays import to_grey
from contract.imaging.decode import read_image
from contract.imaging.encode import encode_image, encode_mask
from contract.imaging.mask_encoding import threshold_encoding
from contract.imaging.segmentation_class import single_foreground
from contract.storage import open_storage
from tests.small import write_split
from trainer.data import cache
from trainer.data.dataset_index import Dataset, SliceRecord, Split

NETWORK = UNet(image_size=32, num_layers=2)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the caches; a user need not have a name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"segfleet-slices-{os.getuid()}"


def create_dataset(folder: Path, fingerprint: str = "f", count: int = 1) -> Dataset:
    """A slice of 16 bits for training, and one with low values for validation."""
    slices = open_storage(str(folder))
    rng = np.random.default_rng(0)
    records = []
    splits: tuple[tuple[Split, int], ...] = (("train", 65536), ("valid", 200))
    for split, high in splits:
        for number in range(count):
            name = f"{split}{number}"
            image = rng.integers(0, high, (32, 32), np.uint16)
            slices.write(f"images/{name}.png", encode_image(image))
            slices.write(f"masks/{name}.png", encode_mask(image > 100, single_foreground()))
            keys = f"images/{name}.png", f"masks/{name}.png"
            records.append(SliceRecord(name, name, split, *keys, 32, 32, (0.5,)))
    return Dataset(slices.url, tuple(records), fingerprint, threshold_encoding(127))


@pytest.mark.parametrize("name", ["meta.json", "00000000"])
def test_what_the_system_has_cleared_is_made_again(name: str, root: Path, tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "slices")
    image, mask = cache.load_split(dataset, "train", NETWORK, 1.0, Data()).read(0)
    (kept,) = root.glob(f"*/{name}")
    kept.unlink()
    again = cache.load_split(dataset, "train", NETWORK, 1.0, Data()).read(0)
    assert np.array_equal(again[0], image)
    assert np.array_equal(again[1], mask)


def test_a_rectangular_split_has_the_height_and_width_of_the_network(
    root: Path, tmp_path: Path
) -> None:
    dataset = create_dataset(tmp_path / "slices")
    wide, high = (UNet(image_size=size, num_layers=2) for size in ((16, 64), (64, 16)))
    for network in (wide, high):
        cached = cache.load_split(dataset, "train", network, 1.0, Data())
        image, mask = cached.read(0)
        assert image.shape == (*network.image_shape, 1)
        assert mask.shape == network.image_shape
        intensities, foreground = (each.numpy() for each in cached.read_tensors(tf.constant(0)))
        assert np.array_equal(intensities, image)
        assert np.array_equal(foreground, mask)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    (tmp_path / "00000003").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"cannot write .*00000003: No space left"):
        cache.write_slice(tmp_path, 3, np.ones((64, 64, 1), np.int16), np.ones((64, 64), np.uint8))


@pytest.mark.usefixtures("root")
def test_16_bit_intensities_are_cached_as_they_are(tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "slices")
    for record in dataset.slices:
        cached = cache.load_split(dataset, record.split, NETWORK, 1.0, Data())
        image, mask = cached.read(0)
        raw = read_image(open_storage(dataset.root), record.image)
        np.testing.assert_array_equal(image, raw)
        np.testing.assert_array_equal(mask, raw[..., 0] > 100)


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 255, np.uint8), (-1024, 3071, np.int16), (0, 65535, np.int32)]
)
def test_python_and_tensorflow_read_the_same(
    low: int, high: int, dtype: type[np.integer], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(low, high + 1, (2, 8, 6, 3), np.int32)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = low, high
    masks = (images[..., 0] > 100).astype(np.uint8)
    split = write_split(tmp_path, images, masks)
    image, mask = split.read(1)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, images[1])
    np.testing.assert_array_equal(mask, masks[1])
    tensors = tf.function(split.read_tensors)(tf.constant(1, tf.int64))
    np.testing.assert_array_equal(tensors[0], images[1])
    np.testing.assert_array_equal(tensors[1], masks[1])


def test_the_cache_used_longest_ago_makes_room_and_one_in_use_does_not(
    root: Path, tmp_path: Path
) -> None:
    datasets = {name: create_dataset(tmp_path / name, name, count=4) for name in "abcd"}
    limit = 2.5 * 4 * 32 * 32 * 5 / 1e9  # two splits of four slices with items of 4 + 1 bytes
    used = cache.load_split(datasets["a"], "train", NETWORK, limit, Data())
    released = cache.load_split(datasets["b"], "train", NETWORK, limit, Data()).folder
    (released / "meta.json").write_text('{"by')
    third = cache.load_split(datasets["c"], "train", NETWORK, limit, Data())
    assert used.folder.exists()
    assert third.folder.exists()
    assert not released.exists()
    assert len(list(root.glob("*/meta.json"))) == 2


@pytest.mark.usefixtures("root")
def test_a_split_larger_than_the_cache_is_an_error(tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "slices", count=4)
    with pytest.raises(DataError, match=r"32 x 32 pixels do not fit in .*cache_gb = 1e-06"):
        cache.load_split(dataset, "train", NETWORK, 1e-6, Data())


@pytest.mark.usefixtures("root")
def test_neighbours_are_channels_of_a_sample(tmp_path: Path) -> None:
    slices = open_storage(str(tmp_path / "slices"))
    records, rng = [], np.random.default_rng(0)
    for name in ("P1-1", "P1-2", "P1-4", "P2-3"):
        # In color, with 8 and with 16 bits.
        image = rng.integers(0, 256 if name < "P1-2" else 999, (64, 64, 3), np.uint16)
        image = image.astype(np.uint8) if name < "P1-2" else image
        slices.write(f"{name}.png", encode_image(image))
        slices.write(f"m-{name}.png", encode_mask(image[..., 0] > 100, single_foreground()))
        keys = f"{name}.png", f"m-{name}.png"
        records.append(SliceRecord(name, name[:2], "train", *keys, 64, 64, (0.5,)))
    dataset = Dataset(slices.url, tuple(records), "f", threshold_encoding(127))
    cached = cache.load_split(dataset, "train", NETWORK, 1.0, Data(neighbours=2))
    grey = [
        cache.resize_slices(
            tf.constant(to_grey(read_image(slices, record.image))[None]), (32, 32), 1, Data()
        ).numpy()[0, ..., 0]
        for record in records
    ]
    expected = [[0, 0, 0, 1, 1], [0, 0, 1, 1, 2], [1, 2, 2, 2, 2], [3] * 5]
    plain = cache.load_split(dataset, "train", NETWORK, 1.0, Data())
    for index, stack in enumerate(expected):
        image, mask = cached.read(index)
        assert np.array_equal(image, np.stack([grey[each] for each in stack], axis=-1))
        assert np.array_equal(mask, plain.read(index)[1])
        tensors = tf.function(cached.read_tensors)(tf.constant(index, tf.int64))
        assert np.array_equal(tensors[0], image)
        assert np.array_equal(tensors[1], mask)
    assert len(list(cached.folder.iterdir())) == len(records) + 1


@pytest.mark.usefixtures("root")
def test_image_and_mask_are_of_the_same_part_of_a_slice(tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "slices")
    slices, record = open_storage(dataset.root), dataset.select("valid")[0]
    data = Data.model_validate({"crop_rows": [0.25, 0.75], "crop_columns": [0.5, 1.0]})
    network = UNet(image_size=16, num_layers=2)
    image, mask = cache.load_split(dataset, "valid", network, 1.0, data).read(0)
    assert np.array_equal(image[..., 0], read_image(slices, record.image)[8:24, 16:, 0])
    assert np.array_equal(mask, dataset.masks.read(slices, record.mask)[8:24, 16:])
    assert 0 < mask.mean() < 1


def test_changed_slices_have_a_cache_of_their_own(root: Path, tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "slices")

    def load(**data: float) -> cache.CachedSplit:
        return cache.load_split(dataset, "valid", NETWORK, 1.0, Data.model_validate(data))

    plain, darker, narrow = load(), load(gamma=2.0), load(gamma=2.0, intensity_high=128.0)
    assert len({each.folder for each in (plain, darker, narrow)}) == 3
    assert load(intensity_high=128.0).folder == plain.folder
    image, changed = plain.read(0)[0], darker.read(0)[0]
    assert np.abs(changed - 255 * (image / 255.0) ** 2).max() <= 0.51
