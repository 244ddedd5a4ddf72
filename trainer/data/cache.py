"""Slices decoded and resized once per machine, then read as memory-mapped arrays.

Decoding 667 slices of 512 pixels takes seconds. The workers of one machine, their restarts and the
trials of a sweep share the result. It is stored in the machine's temporary folder under a name
derived from everything that determines its content, so a stale cache cannot be read and the system
may delete it.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cluster.connection import cache_folder
from contract.config import Network
from contract.imaging.decode import read_image, read_mask
from contract.storage import Storage, open_storage, translate_errors
from trainer.data.dataset_index import Dataset, SliceRecord, Split
from trainer.data.preprocessing import resize, resize_slices

# Increased when the content below changes, so that older caches are not read.
_FORMAT = 3
_IMAGES, _MASKS = "images.npy", "masks.npy"
_READERS = 8

_ResizedSlice = tuple[NDArray[np.int32], NDArray[np.uint8], bool]


@dataclass(frozen=True)
class CachedSplit:
    """The slices of a split at the size of the network.

    images: raw intensities [n, S, S, C], of the smallest type that
    holds them; masks: [n, S, S] of 0 and 1. Both are in
    the order of Dataset.select(split).
    """

    images: NDArray[np.integer]
    masks: NDArray[np.uint8]


def load_split(dataset: Dataset, split: Split, network: Network) -> CachedSplit:
    """The slices of a split, from this machine's cache; the cache is filled if necessary."""
    folder = _cache_root() / _cache_key(dataset, split, network)
    with _locked(folder.with_suffix(".lock")):
        # The system may clear its temporary folder file by file.
        if not all((folder / name).exists() for name in (_IMAGES, _MASKS)):
            _fill(folder, dataset, split, network)
    return CachedSplit(
        np.load(folder / _IMAGES, mmap_mode="r"), np.load(folder / _MASKS, mmap_mode="r")
    )


def _cache_root() -> Path:
    # By user id, because the user of a container may have no name.
    root = cache_folder() / f"segfleet-slices-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    return root


def _cache_key(dataset: Dataset, split: Split, network: Network) -> str:
    size, channels = network.image_size, network.image_channels
    parts = (_FORMAT, dataset.fingerprint, dataset.mask_threshold, split, size, channels)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process of the machine fills a cache; the lock is released if that process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill(folder: Path, dataset: Dataset, split: Split, network: Network) -> None:
    """Write both arrays to a folder with a temporary name, then rename it."""
    storage = open_storage(dataset.root)

    def resize_record(record: SliceRecord) -> _ResizedSlice:
        return _resize_record(record, storage, dataset.mask_threshold, network)

    with ThreadPoolExecutor(_READERS) as pool:
        resized = list(pool.map(resize_record, dataset.select(split)))
    dtype = _smallest_type(resized)
    unfinished = folder.with_suffix(".unfinished")
    for stale in (unfinished, folder):
        shutil.rmtree(stale, ignore_errors=True)
    with translate_errors("write", unfinished):
        unfinished.mkdir()
    _save_array(unfinished / _IMAGES, [image for image, _, _ in resized], dtype)
    _save_array(unfinished / _MASKS, [mask for _, mask, _ in resized], np.uint8)
    unfinished.rename(folder)


def _resize_record(
    record: SliceRecord, storage: Storage, mask_threshold: int, network: Network
) -> _ResizedSlice:
    """Image [S, S, C], mask [S, S], and whether the image needs 16 bits.

    On the CPU, even if there is a GPU: with eight threads on one GPU, TensorFlow 2.21 confused the
    size of the network with the size of a slice (docs/lab-notes.md).
    """
    size = network.image_size
    raw = read_image(storage, record.image)
    full_mask = read_mask(storage, record.mask, mask_threshold)
    with tf.device("CPU"):
        image = resize_slices(tf.constant(raw[None]), size, network.image_channels)[0]
        coverage = resize(tf.constant(full_mask[None, ..., None], tf.float32), size, size)
    return (
        image.numpy().astype(np.int32),
        (coverage.numpy()[0, :, :, 0] > 0.5).astype(np.uint8),
        raw.dtype != np.uint8,
    )


def _smallest_type(resized: Sequence[_ResizedSlice]) -> type[np.integer]:
    """The smallest type for the intensities of all slices; uint8 only if every file has 8 bits."""
    if not any(is_16_bit for _, _, is_16_bit in resized):
        return np.uint8
    low = min(int(image.min()) for image, _, _ in resized)
    high = max(int(image.max()) for image, _, _ in resized)
    if high < 2**15:
        return np.int16
    return np.uint16 if low >= 0 else np.int32


def _save_array(path: Path, values: Sequence[NDArray], dtype: type[np.integer]) -> None:
    """Write values of one shape as a single .npy file without a second copy in memory.

    With ordinary writes, to which a full disk responds with an error. Written through a memory
    map, a full disk ends the process with a signal.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (len(values), *values[0].shape),
    }
    with translate_errors("write", path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for value in values:
            file.write(value.astype(dtype).tobytes())
