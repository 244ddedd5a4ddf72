"""Losses against their formulas in numpy."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.components.losses import LOSS_TERMS, SegmentationLoss

RANDOM = np.random.default_rng(0)
TRUTH = (RANDOM.random((3, 16, 16, 1)) > 0.7).astype(np.float32)
PROBABILITY = RANDOM.random((3, 16, 16, 1)).astype(np.float32)


def bce(y: np.ndarray, p: np.ndarray) -> float:
    return float(np.mean(-y * np.log(p) - (1 - y) * np.log(1 - p)))


def dice(y: np.ndarray, p: np.ndarray) -> float:
    return float(1 - (2 * (y * p).sum() + 1) / (y.sum() + p.sum() + 1))


def iou(y: np.ndarray, p: np.ndarray) -> float:
    both = (y * p).sum()
    return float(1 - (both + 1) / (y.sum() + p.sum() - both + 1))


def ssim(y: np.ndarray, p: np.ndarray) -> float:
    return 1 - float(np.mean(tf.image.ssim(y, p, max_val=1.0)))


FORMULAS = {"bce": bce, "dice": dice, "iou": iou, "ssim": ssim}


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_a_loss_is_the_mean_of_its_terms(name: str) -> None:
    expected = np.mean([FORMULAS[term](TRUTH, PROBABILITY) for term in LOSS_TERMS[name]])
    loss = SegmentationLoss(name)(tf.constant(TRUTH), tf.constant(PROBABILITY))
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_samples_of_weight_zero_do_not_count(name: str) -> None:
    loss = SegmentationLoss(name)
    two = loss(tf.constant(TRUTH[:2]), tf.constant(PROBABILITY[:2]))
    padded = loss(tf.constant(TRUTH), tf.constant(PROBABILITY), tf.constant([1.0, 1.0, 0.0]))
    assert float(padded) == pytest.approx(float(two), rel=1e-5)


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_certain_and_wrong_or_empty_is_still_a_number(name: str) -> None:
    nothing, everything = np.zeros_like(TRUTH), np.ones_like(TRUTH)
    for mask in (nothing, everything):
        for probability in (nothing, everything):
            loss = SegmentationLoss(name)(tf.constant(mask), tf.constant(probability))
            assert np.isfinite(float(loss))


def test_half_precision_probabilities_are_raised_to_float32() -> None:
    half = tf.cast(PROBABILITY, tf.bfloat16)
    loss = SegmentationLoss("bce_dice_loss")(tf.constant(TRUTH), half)
    assert loss.dtype == tf.float32
