"""The predicted slices of a split as volumes, in two files that exceed no memory.

The files are in the temporary folder of the system. Their space is reserved before they are mapped
into memory, because a process that writes to a mapped file on a full disk is killed (SIGBUS).
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import StorageError
from contract.temp_folders import folder_prefix
from trainer.data.dataset_index import SliceRecord, find_record_volumes
from trainer.evaluation.evaluate import predict_split
from trainer.evaluation.slice_reader import Mask, PredictSlices, Probability, SliceReader

_FLOAT_BYTES = 4
# What posix_fallocate reports for a file system that cannot reserve space.
_CANNOT_RESERVE = (errno.EINVAL, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class PredictedVolume:
    """The slices of a volume with their probabilities."""

    patient: str
    y_true: Mask
    """[slices, H, W] of class indices."""
    probability: Probability
    """[slices, H, W, K]."""


@contextmanager
def predict_volumes(
    records: Sequence[SliceRecord],
    reader: SliceReader,
    predict_slices: PredictSlices,
    num_classes: int,
    batch_size: int,
    on_slice: Callable[[], None],
) -> Iterator[list[PredictedVolume]]:
    """The predicted volumes of slices; their files are deleted when the block ends.

    Args:
        records: The slices, of which find_record_volumes makes volumes.
        reader: Reads the slices.
        predict_slices: The network.
        num_classes: The number of classes that it predicts.
        batch_size: How many slices of one size are predicted together, of any volume.
        on_slice: Called after each slice.

    Raises:
        StorageError: The temporary folder has too little space, or a slice cannot be read.
        DataError: A slice cannot be decoded.
    """
    with tempfile.TemporaryDirectory(prefix=folder_prefix("tuning")) as folder:
        groups = find_record_volumes(records)
        volumes = _create_volumes(groups, num_classes, Path(folder))
        positions = {
            record: (volume, index)
            for group, volume in zip(groups, volumes, strict=True)
            for index, record in enumerate(group)
        }
        for record, y_true, _, probability in predict_split(
            records, reader, predict_slices, batch_size
        ):
            volume, index = positions[record]
            volume.y_true[index] = y_true
            volume.probability[index] = probability
            on_slice()
        positions.clear()
        yield volumes
        # A deleted file takes up space as long as an array refers to it.
        volumes.clear()


def count_bytes(records: Sequence[SliceRecord], num_classes: int) -> int:
    """The bytes of the files of predict_volumes."""
    pixels = sum(record.height * record.width for record in records)
    return pixels * (1 + _FLOAT_BYTES * num_classes)


def check_temporary_space(needed: int) -> None:
    """StorageError if fewer than the needed bytes are free in the temporary folder."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _no_space(folder, needed, f"{free} bytes are free")


def _no_space(folder: Path, needed: int, reason: str) -> StorageError:
    return StorageError(
        f"the temporary folder {folder} cannot hold the {needed} bytes of the predicted slices "
        f"({reason}): delete files there, or set TMPDIR to a folder on another disk."
    )


def _create_volumes(
    groups: Sequence[Sequence[SliceRecord]], num_classes: int, folder: Path
) -> list[PredictedVolume]:
    """Volumes whose arrays are parts of two files; two files for each would be too many."""
    shapes = [(len(group), group[0].height, group[0].width) for group in groups]
    sizes = [slices * height * width for slices, height, width in shapes]
    pixels = sum(sizes)
    _reserve(
        {folder / "y_true": pixels, folder / "probability": _FLOAT_BYTES * num_classes * pixels}
    )
    y_true = np.memmap(folder / "y_true", np.uint8, "r+")
    probability = np.memmap(folder / "probability", np.float32, "r+").reshape(pixels, num_classes)
    volumes: list[PredictedVolume] = []
    start = 0
    for group, shape, size in zip(groups, shapes, sizes, strict=True):
        part = slice(start, start + size)
        volumes.append(
            PredictedVolume(
                group[0].patient,
                y_true[part].reshape(shape),
                probability[part].reshape(*shape, num_classes),
            )
        )
        start += size
    return volumes


def _reserve(sizes: dict[Path, int]) -> None:
    """Create files of these sizes in bytes; StorageError if the disk has too little space."""
    needed = sum(sizes.values())
    check_temporary_space(needed)
    try:
        for path, size in sizes.items():
            with path.open("wb") as file:
                file.truncate(size)
                _allocate(file.fileno(), size)
    except OSError as error:
        raise _no_space(
            Path(tempfile.gettempdir()), needed, error.strerror or str(error)
        ) from error


def _allocate(descriptor: int, size: int) -> None:
    """Reserve the bytes of a file, if its file system can."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
