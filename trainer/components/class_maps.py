"""Maps of the classes: from class indices to a channel for each class, and back.

The background, index 0, has no channel. Its probability, or its fraction of a pixel, is what the
classes leave to 1.
"""

from collections.abc import Sequence

import tensorflow as tf


def one_hot(masks: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Class indices, uint8 [..., H, W], as float32 [..., H, W, num_classes] of 0 and 1."""
    planes = [
        tf.cast(tf.equal(masks, tf.constant(index, tf.uint8)), tf.float32)
        for index in range(1, num_classes + 1)
    ]
    return tf.stack(planes, -1)


def class_indices(maps: tf.Tensor, factors: Sequence[float] = ()) -> tf.Tensor:
    """The index of the largest of the background and the classes: uint8 [B, H, W].

    maps: float32 [B, H, W, K]. factors: what each class is multiplied with before; absent: 1. Of
    equal ones the first is chosen, the background before all.
    """
    planes = tf.unstack(maps, axis=-1)
    largest, indices = 1.0 - tf.add_n(planes), tf.zeros(tf.shape(planes[0]), tf.uint8)
    if factors:
        planes = [plane * factor for plane, factor in zip(planes, factors, strict=True)]
    for index, plane in enumerate(planes, start=1):
        indices = tf.where(plane > largest, tf.constant(index, tf.uint8), indices)
        largest = tf.maximum(largest, plane)
    return indices


def predicted_mask(probability: tf.Tensor, thresholds: Sequence[float]) -> tf.Tensor:
    """The mask of probabilities [B, H, W, K]: class indices, uint8 [B, H, W].

    One class is where its probability p is greater than its threshold t. Of several, each pixel has
    the one with the largest p (1 - t) / t, or the background if its probability is as large: a
    class wins against the background where p / (p + background) > t, and with t = 0.5 for all
    classes, the most probable one wins.
    """
    if probability.shape[-1] == 1:
        return tf.cast(tf.squeeze(probability, -1) > thresholds[0], tf.uint8)
    return class_indices(probability, [(1.0 - each) / each for each in thresholds])
