"""Slices decoded and resized once per machine, one file each, which TensorFlow reads by itself.

Decoding 667 slices of 512 pixels takes seconds. The workers of one machine, their restarts and the
trials of a sweep share the result. It is stored in the machine's temporary folder under a name
derived from everything that determines its content, so a stale cache cannot be read and the system
may delete it. However many slices there are, only those in work are in memory.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cluster.connection import cache_folder
from contract.config import Data, Network
from contract.errors import DataError, StorageError
from contract.imaging.arrays import to_grey
from contract.imaging.decode import read_image
from contract.imaging.mask_encoding import MaskEncoding
from contract.storage import Storage, open_storage, translate_errors
from trainer.components.class_maps import class_indices, one_hot
from trainer.data.dataset_index import Dataset, SliceRecord, Split, find_record_neighbours
from trainer.data.preprocessing import crop_maps, resize, resize_slices

# Increased when the content below changes, so that older caches are not read.
_FORMAT = 5
_META = "meta.json"
_CHUNK = 512
_GB = 10**9
# The types of intensities, from small to large; the size of a file tells which one it holds.
_TYPES = (np.uint8, np.int16, np.int32)


class ImageShape(NamedTuple):
    """Height, width and channels of the images of a cache."""

    height: int
    width: int
    channels: int

    @property
    def pixels(self) -> int:
        """Pixels of a mask."""
        return self.height * self.width


@dataclass(frozen=True)
class CachedSplit:
    """The slices of a split at the size of the network, in the order of Dataset.select(split).

    A sample is a slice with its neighbours, if it has any, as further channels.

    Attributes:
        folder: Holds one file per slice: the raw intensities [H, W, C], then the mask [H, W] of
            class indices, uint8.
        num_samples: The number of slices.
        shape: The shape of every slice.
        num_classes: The number of classes, without the background.
        foreground: The indices of the slices with foreground.
        in_use: A lock that keeps the cache from being deleted while this object exists.
        stacks: The indices [num_samples, 2n + 1] of the slices in each sample, with n neighbours on
            each side (contract.imaging.slice_neighbours); None: each slice alone.
    """

    folder: Path
    num_samples: int
    shape: ImageShape
    num_classes: int
    foreground: tuple[int, ...]
    in_use: IO[str] | None = None
    stacks: NDArray[np.int64] | None = None

    @property
    def sample_shape(self) -> ImageShape:
        """The shape of every sample: of a slice, with the channels of its neighbours."""
        stack_size = 1 if self.stacks is None else self.stacks.shape[1]
        return self.shape._replace(channels=self.shape.channels * stack_size)

    def read(self, index: int) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
        """The raw intensities [H, W, C] and the mask [H, W] of a sample.

        C is that of a slice times the number of slices in a sample.
        """
        if self.stacks is None:
            return self._read_slice(index)
        images = [self._read_slice(int(each))[0] for each in self.stacks[index]]
        return np.concatenate(images, axis=-1), self._read_slice(index)[1]

    def read_tensors(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The same as `read` in a graph: float32 [H, W, C] and uint8 [H, W]."""
        if self.stacks is None:
            return self._read_slice_tensors(index)
        size = self.stacks.shape[1]
        indices = tf.unstack(tf.gather(tf.constant(self.stacks), index), size)
        slices = [self._read_slice_tensors(each) for each in indices]
        return tf.concat([image for image, _ in slices], axis=-1), slices[size // 2][1]

    def _read_slice(self, index: int) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
        content = (self.folder / _file_name(index)).read_bytes()
        intensities = content[: -self.shape.pixels]
        size = len(intensities) // (self.shape.pixels * self.shape.channels)
        (dtype,) = (each for each in _TYPES if np.dtype(each).itemsize == size)
        mask = np.frombuffer(content[-self.shape.pixels :], np.uint8)
        return (
            np.frombuffer(intensities, dtype).reshape(self.shape),
            mask.reshape(self.shape[:2]),
        )

    def _read_slice_tensors(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        name = tf.strings.as_string(index, width=_DIGITS, fill="0")
        content = tf.io.read_file(tf.strings.join([f"{self.folder}/", name]))
        mask_start = tf.strings.length(content) - self.shape.pixels
        intensities = tf.strings.substr(content, 0, mask_start)
        mask = tf.io.decode_raw(tf.strings.substr(content, mask_start, self.shape.pixels), tf.uint8)
        decode = [
            lambda dtype=dtype: tf.cast(tf.io.decode_raw(intensities, dtype), tf.float32)
            for dtype in _TYPES
        ]
        # Items of 1, 2 and 4 bytes.
        image = tf.switch_case(mask_start // (self.shape.pixels * self.shape.channels) // 2, decode)
        return (
            tf.reshape(image, self.shape),
            tf.reshape(mask, self.shape[:2]),
        )


_DIGITS = 8


def _file_name(index: int) -> str:
    return f"{index:0{_DIGITS}d}"


def write_slice(
    folder: Path, index: int, image: NDArray[np.integer], mask: NDArray[np.uint8]
) -> int:
    """Write the file of a slice from its intensities [H, W, C] and its mask [H, W]; its size."""
    low, high = int(image.min()), int(image.max())
    dtype = next(
        each for each in _TYPES if np.iinfo(each).min <= low and high <= np.iinfo(each).max
    )
    content = image.astype(dtype).tobytes() + mask.astype(np.uint8).tobytes()
    path = folder / _file_name(index)
    with translate_errors("write", path):
        path.write_bytes(content)
    return len(content)


def load_split(
    dataset: Dataset, split: Split, network: Network, cache_gb: float, data: Data
) -> CachedSplit:
    """The slices of a split, from this machine's cache; the cache is filled if necessary.

    Args:
        dataset: The prepared slices.
        split: Which of them.
        network: The settings [network], which determine the shape.
        cache_gb: The largest size of the machine's cache, in GB of 10^9 bytes.
        data: The settings [data]: the neighbours of a slice, which are further channels of a
            sample, changes of every slice, and the part of it that is used.

    Raises:
        DataError: The split alone is larger.
    """
    root = _cache_root()
    folder = root / _cache_key(dataset, split, network, data)
    records = dataset.select(split)
    shape = ImageShape(*network.image_shape, network.image_channels)
    in_use = folder.with_suffix(".use").open("w")
    foreground = tuple(index for index, record in enumerate(records) if record.foreground)
    cached = CachedSplit(
        folder,
        len(records),
        shape,
        len(dataset.masks.classes),
        foreground,
        in_use,
        find_record_neighbours(records, data.neighbours) if data.neighbours else None,
    )
    # Only one process of the machine fills a cache; the lock is released if that process dies.
    with folder.with_suffix(".fill").open("w") as filling:
        fcntl.flock(filling, fcntl.LOCK_EX)
        fcntl.flock(in_use, fcntl.LOCK_SH)
        if not _is_complete(cached):
            _fill(cached, dataset, records, network, cache_gb, data)
    os.utime(folder)
    return cached


@contextmanager
def report_deleted_slices(cached: CachedSplit) -> Iterator[None]:
    """StorageError if a file of a cache is missing: the system may clear its temporary folder.

    load_split decodes the slices again.
    """
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise StorageError(
            f"decoded slices were deleted from {cached.folder.parent} while they were in use: "
            "exclude this folder from the program that clears temporary files."
        ) from error


def _cache_root() -> Path:
    # By user id, because the user of a container may have no name.
    root = cache_folder() / f"segfleet-slices-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    return root


def _cache_key(dataset: Dataset, split: Split, network: Network, data: Data) -> str:
    shape = (*network.image_shape, network.image_channels)
    parts = (_FORMAT, dataset.fingerprint, dataset.masks, split, shape, data.neighbours > 0)
    if data.adjusts_slices:
        window = (data.intensity_low, data.intensity_high)
        parts = (*parts, data.color_space, data.gamma, data.sharpening, window)
    if data.is_cropped:
        parts = (*parts, data.crop_rows, data.crop_columns)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _is_complete(cached: CachedSplit) -> bool:
    """Whether all files are there; the system may clear its temporary folder file by file."""
    if not (cached.folder / _META).exists():
        return False
    return sum(1 for _ in cached.folder.iterdir()) == cached.num_samples + 1


def _fill(
    cached: CachedSplit,
    dataset: Dataset,
    records: Sequence[SliceRecord],
    network: Network,
    cache_gb: float,
    data: Data,
) -> None:
    """Write all slices to a folder with a temporary name, then rename it."""
    storage = open_storage(dataset.root)
    unfinished = cached.folder.with_suffix(".unfinished")
    for stale in (unfinished, cached.folder):
        shutil.rmtree(stale, ignore_errors=True)
    with translate_errors("write", unfinished):
        unfinished.mkdir()

    def cache_record(index: int) -> int:
        record = records[index]
        image, mask = read_resized(record, storage, dataset.masks, network, data)
        return write_slice(unfinished, index, image, mask)

    total, limit = 0, int(cache_gb * _GB)
    free = limit - _make_room(cached.folder, limit)
    try:
        with ThreadPoolExecutor(storage.num_readers) as pool:
            # Not all at once, so that an error is reported before all slices are read.
            for start in range(0, len(records), _CHUNK):
                indices = range(start, min(start + _CHUNK, len(records)))
                total += sum(pool.map(cache_record, indices))
                if total > limit:
                    raise DataError(
                        f"the slices of {dataset.root} at {cached.shape.width} x "
                        f"{cached.shape.height} pixels do not fit in storage.cache_gb = "
                        f"{cache_gb:g}: set it higher, or lower network.image_size."
                    )
                if total > free:
                    free = limit - _make_room(cached.folder, limit - total)
        with translate_errors("write", unfinished / _META):
            (unfinished / _META).write_text(json.dumps({"bytes": total}), encoding="utf-8")
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(cached.folder)


def _make_room(keep: Path, limit: int) -> int:
    """Delete the caches used longest ago until the others have at most `limit` bytes; their size.

    A cache that a process uses is not deleted.
    """
    sizes: dict[Path, int] = {}
    for meta in keep.parent.glob(f"*/{_META}"):
        if meta.parent != keep:
            sizes[meta.parent] = _read_size(meta)
    total = sum(sizes.values())
    for folder in sorted(sizes, key=lambda path: path.stat().st_mtime):
        if total <= limit:
            break
        with folder.with_suffix(".use").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(folder, ignore_errors=True)
        total -= sizes[folder]
    return total


def _read_size(meta: Path) -> int:
    """The bytes of a cache, also if its meta.json is damaged; 0 if it has just been deleted."""
    try:
        return int(json.loads(meta.read_bytes())["bytes"])
    except OSError:
        return 0
    except (ValueError, KeyError, TypeError):
        return sum(path.stat().st_size for path in meta.parent.iterdir())


def read_resized(
    record: SliceRecord,
    storage: Storage,
    masks: MaskEncoding,
    network: Network,
    data: Data,
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """A slice at the size of the network: raw image [H, W, C] and mask [H, W] of class indices."""
    image = read_resized_image(storage, record.image, network, data)
    return image, read_resized_mask(storage, record.mask, masks, network, data)


def read_resized_image(
    storage: Storage, key: str, network: Network, data: Data
) -> NDArray[np.int32]:
    """An image at the size of the network, raw intensities [H, W, C], changed as data says.

    On the CPU, even if there is a GPU: with eight threads on one GPU, TensorFlow 2.21 confused the
    size of the network with the size of a slice (docs/lab-notes.md). With neighbours, color becomes
    grey before and not after the size changes, as in prediction.
    """
    raw = read_image(storage, key)
    if data.neighbours:
        raw = to_grey(raw)
    with tf.device("CPU"):
        image = resize_slices(
            tf.constant(raw[None]), network.image_shape, network.image_channels, data
        )
    return image[0].numpy().astype(np.int32)


def read_resized_mask(
    storage: Storage, key: str, masks: MaskEncoding, network: Network, data: Data
) -> NDArray[np.uint8]:
    """A mask at the size of the network, class indices [H, W]; on the CPU, as an image."""
    full_mask = masks.read(storage, key)
    with tf.device("CPU"):
        coverage = one_hot(tf.constant(full_mask[None]), len(masks.classes))
        resized = resize(coverage, *network.image_shape, *crop_maps(data))
        return class_indices(resized)[0].numpy()
