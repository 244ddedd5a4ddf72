"""From class indices to a channel for each class, and back."""

import numpy as np
import tensorflow as tf

from trainer.components.class_maps import class_indices, one_hot, predicted_mask

MASKS = np.random.default_rng(0).integers(0, 4, (2, 5, 6)).astype(np.uint8)


def test_indices_come_back_from_their_channels() -> None:
    maps = one_hot(tf.constant(MASKS), 3)
    assert (maps.shape, maps.dtype) == ((2, 5, 6, 3), tf.float32)
    np.testing.assert_array_equal(maps, np.eye(4)[MASKS][..., 1:])
    np.testing.assert_array_equal(class_indices(maps), MASKS)


def test_the_largest_of_background_and_classes_is_chosen() -> None:
    maps = [[0.2, 0.7], [0.6, 0.1], [0.3, 0.3], [0.25, 0.25], [0.5, 0.0], [0.5, 0.5]]
    indices = class_indices(tf.constant(maps)[None, None])
    # Of equal ones the first: the background (0.4 and 0.5 are left), then the first class.
    assert indices.numpy()[0, 0].tolist() == [2, 1, 0, 0, 0, 1]


def test_a_single_class_is_above_the_threshold() -> None:
    maps = tf.constant([[[[0.3], [0.31], [0.9]]]])
    assert predicted_mask(maps, (0.3,)).numpy().tolist() == [[[0, 1, 1]]]


def test_of_several_classes_a_threshold_is_the_share_against_the_background() -> None:
    maps = one_hot(tf.constant(MASKS), 3) * 0.6
    np.testing.assert_array_equal(predicted_mask(maps, (0.5,) * 3), MASKS)
    # 0.6 of 0.6 + 0.4: above 0.59, not above 0.61.
    only_second = np.where(MASKS == 2, MASKS, 0)
    np.testing.assert_array_equal(predicted_mask(maps, (0.61, 0.59, 0.61)), only_second)
    # Of 0.4 and 0.35, the class with the lower threshold wins.
    both = tf.constant([[[[0.4, 0.35]]]])
    assert predicted_mask(both, (0.5, 0.5)).numpy().item() == 1
    assert predicted_mask(both, (0.5, 0.4)).numpy().item() == 2
