"""The slices that a run draws after each epoch: of the validation split, or of a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from contract.config import Config
from contract.imaging.arrays import to_grey
from contract.imaging.decode import read_image
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.mask_encoding import MaskEncoding
from contract.storage import Storage
from trainer.data.cache import CachedSplit, read_resized_image, read_resized_mask
from trainer.data.dataset_index import SliceRecord
from trainer.data.pipeline import load_sample
from trainer.data.preprocessing import apply_window
from trainer.data.preview_source import find_own_slices


@dataclass(frozen=True)
class PreviewSlice:
    """A slice to draw.

    Attributes:
        image: [H, W, C] in 0..1, at the size of the network, or with train.preview_windows at its
            own.
        mask: The ground truth, class indices [H, W]; None without one.
        name: Its name below the image.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    name: str


def load_validation_slices(
    valid: CachedSplit, records: Sequence[SliceRecord], scaling: IntensityScaling, count: int
) -> list[PreviewSlice]:
    """At most `count` slices of the validation split, evenly spaced over those with foreground."""
    return [
        PreviewSlice(*load_sample(valid, scaling, int(index)), records[index].name)
        for index in select_preview_slices(records, count)
    ]


def select_preview_slices(records: Sequence[SliceRecord], count: int) -> NDArray[np.int64]:
    """Indices of slices to draw: evenly spaced over the slices with foreground."""
    with_foreground = np.flatnonzero([record.foreground > 0 for record in records])
    positions = np.linspace(0, len(with_foreground) - 1, min(count, len(with_foreground)))
    return with_foreground[positions.round().astype(int)]


def load_own_slices(
    source: Storage,
    config: Config,
    masks: MaskEncoding,
    scaling: IntensityScaling,
    count: int,
) -> list[PreviewSlice]:
    """The first `count` images of a folder, by name, with their masks if it has some.

    With data.neighbours, an image is repeated in place of its neighbours.

    Raises DataError if there are none, or if a file cannot be read.
    """
    read = _read_at_own_size if config.train.preview_windows else _read_resized
    slices = []
    for image_key, mask_key in find_own_slices(source)[:count]:
        raw, mask = read(source, image_key, mask_key, masks, config)
        image = apply_window(raw.astype(np.float32), scaling, clip=np.clip).astype(np.float32)
        if config.data.neighbours:
            image = np.repeat(image, config.data.stack_size, axis=-1)
        slices.append(PreviewSlice(image, mask, PurePosixPath(image_key).stem))
    return slices


def _read_resized(
    source: Storage, image_key: str, mask_key: str | None, masks: MaskEncoding, config: Config
) -> tuple[NDArray, NDArray[np.uint8] | None]:
    raw = read_resized_image(source, image_key, config.network, config.data)
    if mask_key is None:
        return raw, None
    return raw, read_resized_mask(source, mask_key, masks, config.network, config.data)


def _read_at_own_size(
    source: Storage, image_key: str, mask_key: str | None, masks: MaskEncoding, config: Config
) -> tuple[NDArray, NDArray[np.uint8] | None]:
    raw = read_image(source, image_key)
    mask = masks.read(source, mask_key) if mask_key else None
    return to_grey(raw) if config.data.neighbours else raw, mask
