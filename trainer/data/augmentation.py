"""Random augmentation of a batch of training samples, as TensorFlow operations.

A sample's random numbers are drawn from the seed of (run, epoch, sample index) alone, so a sample
of an epoch is the same whatever ran before it and however many workers there are. Every setting has
random numbers of its own: switching one on does not change the others. All channels of an image,
colors or neighbouring slices, are changed alike, but each has noise of its own.
"""

from collections.abc import Mapping

import tensorflow as tf

from contract.config import Augment
from trainer.data import geometric_transforms, intensity_transforms
from trainer.data.random_numbers import RandomNumbers

PROBABILITIES = (*geometric_transforms.PROBABILITIES, *intensity_transforms.PROBABILITIES)
"""The settings of [data.augment] that switch an augmentation on."""

SampleBatch = tuple[tf.Tensor, tf.Tensor]


def draw(seed: tf.Tensor, augment: Augment, shape: tuple[int, int, int]) -> dict[str, tf.Tensor]:
    """The random numbers of one sample.

    Args:
        seed: int32 [2].
        augment: Probabilities and ranges.
        shape: Height, width and channels of the image.

    Returns:
        Tensors by name, to be batched and passed to augment_batch.
    """
    numbers = {"uniform": RandomNumbers.draw(seed)}
    numbers |= geometric_transforms.draw_fields(seed, augment, shape[:2])
    return numbers | intensity_transforms.draw_fields(seed, augment, shape)


def augment_batch(
    images: tf.Tensor, masks: tf.Tensor, numbers: Mapping[str, tf.Tensor], augment: Augment
) -> SampleBatch:
    """Augmented copies of a batch.

    Args:
        images: float32 [B, H, W, C] in 0..1.
        masks: float32 [B, H, W, K] of 0 and 1, a channel for each class.
        numbers: The random numbers of `draw`, batched.
        augment: Probabilities and ranges.

    Returns:
        Images and masks with the same shapes and ranges.
    """
    random = RandomNumbers(numbers["uniform"])
    images, masks = geometric_transforms.apply(images, masks, random, numbers, augment)
    return intensity_transforms.apply(images, random, numbers, augment), masks
