"""The slices of a dataset and the network of a bundle, as functions for evaluation."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract import bundle as bundles
from contract.imaging.components import process_slice
from contract.imaging.decode import read_image
from contract.imaging.mask_encoding import MaskEncoding
from contract.imaging.slice_neighbours import center_slice, stack_slices
from contract.storage import LocalStorage, Storage, open_storage
from trainer.data.dataset_index import Dataset, SliceRecord, find_record_neighbours

Pixels = NDArray[np.uint8 | np.int32]
Mask = NDArray[np.uint8]
Probability = NDArray[np.float32]
PredictSlices = Callable[[Pixels], tuple[Mask, Probability]]
LoadedSlice = tuple[SliceRecord, Pixels, Mask]

_READERS = 4


def load_saved_model(folder: Path) -> PredictSlices:
    """The SavedModel of a bundle as a function of slices [B, H, W, C].

    It returns their masks [B, H, W], after the steps with the scope "slice", and the probabilities
    of the classes [B, H, W, K].
    """
    steps = bundles.read_manifest(LocalStorage(folder)).post_processing
    model = tf.saved_model.load(str(folder / "saved_model"))

    def predict(slices: Pixels) -> tuple[Mask, Probability]:
        name = "serving_default" if slices.dtype == np.uint8 else "int32"
        outputs = model.signatures[name](slices=tf.constant(slices))
        masks = [process_slice(mask, steps) for mask in outputs["mask"].numpy()]
        return np.stack(masks), outputs["probability"].numpy()

    return predict


@dataclass(frozen=True)
class SliceReader:
    """Reads the slices of a dataset."""

    storage: Storage
    masks: MaskEncoding
    window: tuple[float, float]
    """The raw intensities that overlays show as black and white."""
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The images of the slices in the stack of each image (find_stacks); empty without
    neighbours."""

    def read(self, record: SliceRecord) -> LoadedSlice:
        """The record, its image [H, W, C] and its ground truth [H, W].

        With neighbours, the image is a stack of grey slices.
        """
        return record, self._read_stack(record.image), self.masks.read(self.storage, record.mask)

    def _read_stack(self, image: str) -> Pixels:
        if image not in self.stacks:
            return read_image(self.storage, image)
        names = self.stacks[image]
        slices = {name: read_image(self.storage, name) for name in names}
        return stack_slices(
            [slices[name] for name in names], [f"{self.storage.url}/{name}" for name in names]
        )

    def shown_slice(self, image: Pixels) -> Pixels:
        """What overlays show of an image that was read: the center of a stack."""
        return center_slice(image, image.shape[-1] if self.stacks else 1)


def open_reader(
    dataset: Dataset,
    records: Sequence[SliceRecord],
    window: tuple[float, float],
    neighbours: int,
) -> SliceReader:
    """A reader of some slices of a dataset; window: as in SliceReader."""
    stacks = find_stacks(records, neighbours)
    return SliceReader(open_storage(dataset.root), dataset.masks, window, stacks)


def find_stacks(records: Sequence[SliceRecord], neighbours: int) -> dict[str, tuple[str, ...]]:
    """The images of the slices in the stack of each image, lowest first; empty for 0 neighbours."""
    if not neighbours:
        return {}
    table = find_record_neighbours(records, neighbours)
    return {
        record.image: tuple(records[index].image for index in stack)
        for record, stack in zip(records, table, strict=True)
    }


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
