"""Slices decoded and resized once per machine, then read as memory-mapped arrays.

Decoding 667 slices of 512 pixels takes seconds; the workers of one machine, their restarts and the
trials of a sweep share the result. It lies in the machine's temporary folder under a name made of
everything that decides its content, so a stale one cannot be met and the system may delete it.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.config import Config
from contract.storage import Storage, open_storage, translate_errors
from trainer.data.dataset_index import Dataset, SliceRecord, Split, read_image, read_mask
from trainer.data.preprocessing import resize, resize_slices

# Raised when what is written below changes, so that older caches are not read.
_FORMAT = 2
_IMAGES, _MASKS = "images.npy", "masks.npy"
_READERS = 8


@dataclass(frozen=True)
class CachedSplit:
    """The slices of a split at the network's size.

    images: [n, S, S, C] raw intensities, uint8 or int16; masks: [n, S, S] of 0 and 1. Both in the
    order of Dataset.of(split).
    """

    images: NDArray[np.uint8] | NDArray[np.int16]
    masks: NDArray[np.uint8]


def load_split(config: Config, dataset: Dataset, split: Split) -> CachedSplit:
    """The slices of a split, from this machine's cache or made now."""
    folder = _home() / _key(config, dataset, split)
    with _locked(folder.with_suffix(".lock")):
        # The system clears its temporary folder file by file.
        if not all((folder / name).exists() for name in (_IMAGES, _MASKS)):
            _fill(folder, config, dataset, split)
    return CachedSplit(
        np.load(folder / _IMAGES, mmap_mode="r"), np.load(folder / _MASKS, mmap_mode="r")
    )


def _home() -> Path:
    # By number, as a container's user may have no name.
    home = Path(tempfile.gettempdir()) / f"segfleet-slices-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    return home


def _key(config: Config, dataset: Dataset, split: Split) -> str:
    network, data = config.network, config.data
    parts = (_FORMAT, dataset.fingerprint, split, network.image_size, network.image_channels)
    text = repr((*parts, data.mask_threshold))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process of the machine fills a cache; the system lets go of the lock if it dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill(folder: Path, config: Config, dataset: Dataset, split: Split) -> None:
    """Write both arrays into a folder of another name, then rename it."""
    slices = open_storage(dataset.root)

    def fit(case: SliceRecord) -> tuple[NDArray[np.int16], NDArray[np.uint8], bool]:
        return _fit(config, slices, case)

    with ThreadPoolExecutor(_READERS) as pool:
        fitted = list(pool.map(fit, dataset.select(split)))
    wide = any(wide for _, _, wide in fitted)
    unfinished = folder.with_suffix(".unfinished")
    for stale in (unfinished, folder):
        shutil.rmtree(stale, ignore_errors=True)
    with translate_errors("write", unfinished):
        unfinished.mkdir()
    _save(unfinished / _IMAGES, [image for image, _, _ in fitted], np.int16 if wide else np.uint8)
    _save(unfinished / _MASKS, [mask for _, mask, _ in fitted], np.uint8)
    unfinished.rename(folder)


def _fit(
    config: Config, slices: Storage, case: SliceRecord
) -> tuple[NDArray[np.int16], NDArray[np.uint8], bool]:
    """Image [S, S, C], mask [S, S], and whether the image needs 16 bits.

    On the CPU, whatever there is: with eight threads on one GPU TensorFlow 2.21 took the network's
    side for a slice's (docs/lab-notes.md).
    """
    side = config.network.image_size
    raw = read_image(slices, case.image)
    truth = read_mask(slices, case.mask, config.data.mask_threshold)
    with tf.device("CPU"):
        image = resize_slices(tf.constant(raw[None]), side, config.network.image_channels)[0]
        share = resize(tf.constant(truth[None, ..., None], tf.float32), side, side)[0, :, :, 0]
    return (
        image.numpy().astype(np.int16),
        (share.numpy() > 0.5).astype(np.uint8),
        raw.dtype != np.uint8,
    )


def _save(path: Path, values: Sequence[NDArray], dtype: type[np.integer]) -> None:
    """Write values of one shape as a single .npy file, without a second copy of them in memory.

    By ordinary writes, which a full disk refuses with an error: written through a memory map, it
    ends the process by a signal.
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
