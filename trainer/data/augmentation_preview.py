"""A picture of what augmentation does to a training sample, to look at before training."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.config import Augment, Data, Network
from contract.imaging.encode import encode_png
from contract.imaging.segmentation_class import SegmentationClass
from contract.imaging.slice_neighbours import center_slice
from contract.storage import Storage
from trainer.components.class_maps import class_indices, one_hot
from trainer.data.augmentation import PROBABILITIES, augment_batch, draw
from trainer.data.cache import read_resized
from trainer.data.dataset_index import (
    Dataset,
    SliceRecord,
    find_record_neighbours,
    intensity_scaling,
)
from trainer.data.pipeline import sample_seed
from trainer.data.preprocessing import apply_window
from trainer.visualization.image_grid import image_grid
from trainer.visualization.overlays import RgbImage, draw_overlay

_EPOCHS = 5
_TILE_SIZE = 176


def draw_augmentation_preview(
    dataset: Dataset, data: Data, network: Network, seed: int, storage: Storage
) -> bytes | None:
    """A training sample next to augmented copies, with the outlines of their masks; a PNG.

    The first row is what the first five epochs of a training with this seed use. Each further row
    shows one augmentation alone, applied with probability 1. The sample is the training slice with
    the most foreground.

    Args:
        dataset: The prepared slices.
        data: The settings [data].
        network: The settings [network], which determine the size.
        seed: The setting run.seed.
        storage: The folder of the dataset.

    Returns:
        The picture; None if no augmentation has a probability above 0.

    Raises:
        DataError, StorageError: The slice cannot be read.
    """
    active = active_augmentations(data.augment)
    if not active:
        return None
    records = dataset.select("train")
    index = int(np.argmax([record.foreground for record in records]))
    raw, mask = _read_sample(index, records, dataset, data, network, storage)
    scaling = intensity_scaling(dataset, data)
    image = apply_window(raw.astype(np.float32), scaling, clip=np.clip)
    seeds = [sample_seed(seed, epoch, index) for epoch in range(_EPOCHS)]
    classes = dataset.masks.classes
    original = _draw_tile(image, mask, classes, data.stack_size)
    tiles = [
        original,
        *_augmented_tiles(image, mask, data.augment, seeds, classes, data.stack_size),
    ]
    captions = [records[index].name, *[f"epoch {epoch + 1}" for epoch in range(_EPOCHS)]]
    for name in active:
        alone = _only(data.augment, name)
        tiles += [
            original,
            *_augmented_tiles(image, mask, alone, seeds, classes, data.stack_size),
        ]
        captions += ["original", *[name.removesuffix("_probability").replace("_", " ")] * _EPOCHS]
    return encode_png(image_grid(tiles, _EPOCHS + 1, captions))


def _read_sample(
    index: int,
    records: Sequence[SliceRecord],
    dataset: Dataset,
    data: Data,
    network: Network,
    storage: Storage,
) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
    """A sample as CachedSplit.read returns it."""
    slices = [
        read_resized(records[each], storage, dataset.masks, network, data)
        for each in find_record_neighbours(records, data.neighbours)[index]
    ]
    return np.concatenate([image for image, _ in slices], axis=-1), slices[data.neighbours][1]


def active_augmentations(augment: Augment) -> list[str]:
    """The settings of [data.augment] that switch an augmentation on: a probability above 0."""
    return [name for name in PROBABILITIES if getattr(augment, name)]


def _only(augment: Augment, name: str) -> Augment:
    """The same ranges, with one augmentation that always applies and no other."""
    probabilities = dict.fromkeys(PROBABILITIES, 0.0) | {name: 1.0}
    return Augment.model_validate(augment.model_dump() | probabilities)


def _augmented_tiles(
    image: NDArray[np.float32],
    mask: NDArray[np.uint8],
    augment: Augment,
    seeds: Sequence[tf.Tensor],
    classes: Sequence[SegmentationClass],
    stack_size: int,
) -> list[RgbImage]:
    """One augmented copy of the sample for each seed."""
    drawn = [draw(seed, augment, image.shape) for seed in seeds]
    numbers = {name: tf.stack([each[name] for each in drawn]) for name in drawn[0]}
    images = tf.constant(np.repeat(image[None], len(seeds), axis=0))
    masks = tf.constant(np.repeat(mask[None], len(seeds), axis=0))
    images, maps = augment_batch(images, one_hot(masks, len(classes)), numbers, augment)
    return [
        _draw_tile(copy, copy_mask, classes, stack_size)
        for copy, copy_mask in zip(images.numpy(), class_indices(maps).numpy(), strict=True)
    ]


def _draw_tile(
    image: NDArray[np.float32],
    mask: NDArray[np.uint8],
    classes: Sequence[SegmentationClass],
    stack_size: int,
) -> RgbImage:
    shown = center_slice(image, stack_size)
    return draw_overlay(shown, mask, window=(0.0, 1.0), size=_TILE_SIZE, classes=classes)
