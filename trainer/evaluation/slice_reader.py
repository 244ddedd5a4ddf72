"""The slices of a dataset and the network of a bundle, as functions for evaluation."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.imaging.decode import read_image
from contract.imaging.mask_encoding import MaskEncoding
from contract.storage import Storage
from trainer.data.dataset_index import SliceRecord

Pixels = NDArray[np.uint8 | np.int32]
Mask = NDArray[np.uint8]
PredictMasks = Callable[[Pixels], Mask]
LoadedSlice = tuple[SliceRecord, Pixels, Mask]

_READERS = 4


def load_saved_model(folder: Path) -> PredictMasks:
    """The SavedModel of a bundle as a function from slices [B, H, W, C] to masks [B, H, W]."""
    model = tf.saved_model.load(str(folder / "saved_model"))

    def predict(slices: Pixels) -> Mask:
        name = "serving_default" if slices.dtype == np.uint8 else "int32"
        return model.signatures[name](slices=tf.constant(slices))["mask"].numpy()

    return predict


@dataclass(frozen=True)
class SliceReader:
    """Reads the slices of a dataset."""

    storage: Storage
    masks: MaskEncoding
    window: tuple[float, float]
    """The raw intensities that overlays show as black and white."""

    def read(self, record: SliceRecord) -> LoadedSlice:
        """The record, its image [H, W, C] and its ground truth [H, W]."""
        image = read_image(self.storage, record.image)
        return record, image, self.masks.read(self.storage, record.mask)


def read_ahead(records: Sequence[SliceRecord], reader: SliceReader) -> Iterator[LoadedSlice]:
    """The slices in order, a few decoded ahead while the network computes."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="evaluate") as pool:
        pending: deque[Future[LoadedSlice]] = deque()
        for record in records:
            pending.append(pool.submit(reader.read, record))
            if len(pending) > 2 * _READERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def batch_by_shape(slices: Iterable[LoadedSlice], batch_size: int) -> Iterator[list[LoadedSlice]]:
    """At most batch_size slices of the same shape and type at a time."""
    incomplete: dict[tuple[object, ...], list[LoadedSlice]] = {}
    for loaded in slices:
        key = (loaded[1].shape, loaded[1].dtype.str)
        batch = incomplete.setdefault(key, [])
        batch.append(loaded)
        if len(batch) == batch_size:
            yield incomplete.pop(key)
    yield from incomplete.values()
