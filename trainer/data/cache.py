"""Slices decoded and resized once per machine, then read as memory-mapped arrays.

Decoding 667 slices of 512 pixels takes seconds; the workers of one machine, their restarts and the
trials of a sweep share the result. It lies in the machine's temporary folder under a name made of
everything that decides its content, so a stale one cannot be met and the system may delete it.
"""

import fcntl
import getpass
import hashlib
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
from contract.storage import Storage, open_storage
from trainer.data.cases import Case, Dataset, Split, read_image, read_mask
from trainer.preprocess import fit_slices, resize

# Raised when what is written below changes, so that older caches are not read.
_FORMAT = 1
_READERS = 8


@dataclass(frozen=True)
class Arrays:
    """The slices of a split at the network's size.

    images: [n, S, S, C] raw intensities, uint8 or int16; masks: [n, S, S] of 0 and 1. Both in the
    order of Dataset.of(split).
    """

    images: NDArray[np.uint8] | NDArray[np.int16]
    masks: NDArray[np.uint8]


def arrays(config: Config, dataset: Dataset, split: Split) -> Arrays:
    """The slices of a split, from this machine's cache or made now."""
    folder = _home() / _key(config, dataset, split)
    with _locked(folder.with_suffix(".lock")):
        if not folder.exists():
            _fill(folder, config, dataset, split)
    return Arrays(
        np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "masks.npy", mmap_mode="r")
    )


def _home() -> Path:
    home = Path(tempfile.gettempdir()) / f"segfleet-slices-{getpass.getuser()}"
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

    def fit(case: Case) -> tuple[NDArray[np.int16], NDArray[np.uint8], bool]:
        return _fit(config, slices, case)

    with ThreadPoolExecutor(_READERS) as pool:
        fitted = list(pool.map(fit, dataset.of(split)))
    wide = any(wide for _, _, wide in fitted)
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    _save(
        unfinished / "images.npy", [image for image, _, _ in fitted], np.int16 if wide else np.uint8
    )
    _save(unfinished / "masks.npy", [mask for _, mask, _ in fitted], np.uint8)
    unfinished.rename(folder)


def _fit(
    config: Config, slices: Storage, case: Case
) -> tuple[NDArray[np.int16], NDArray[np.uint8], bool]:
    """Image [S, S, C], mask [S, S], and whether the image needs 16 bits."""
    side = config.network.image_size
    raw = read_image(slices, case.image)
    image = fit_slices(tf.constant(raw[None]), side, config.network.image_channels)[0]
    truth = read_mask(slices, case.mask, config.data.mask_threshold)
    share = resize(tf.constant(truth[None, ..., None], tf.float32), side, side)[0, :, :, 0]
    return (
        image.numpy().astype(np.int16),
        (share.numpy() > 0.5).astype(np.uint8),
        raw.dtype != np.uint8,
    )


def _save(path: Path, values: Sequence[NDArray], dtype: type) -> None:
    array = np.lib.format.open_memmap(
        path, mode="w+", dtype=dtype, shape=(len(values), *values[0].shape)
    )
    for index, value in enumerate(values):
        array[index] = value
    array.flush()
