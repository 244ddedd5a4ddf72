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


LABELS = RANDOM.integers(0, 3, (2, 16, 16))
MASKS = np.stack([LABELS == 1, LABELS == 2], -1).astype(np.float32)
PROBABILITIES = RANDOM.dirichlet(np.ones(3), (2, 16, 16)).astype(np.float32)


def test_several_classes_have_categorical_entropy_and_the_mean_dice() -> None:
    loss = SegmentationLoss("bce_dice_loss", (1.0, 1.0, 1.0))
    value = float(loss(tf.constant(MASKS), tf.constant(PROBABILITIES[..., 1:])))
    of_label = np.take_along_axis(PROBABILITIES, LABELS[..., None], -1)
    mean_dice = np.mean([dice(MASKS[..., k], PROBABILITIES[..., k + 1]) for k in range(2)])
    assert value == pytest.approx((-np.log(of_label).mean() + mean_dice) / 2, rel=1e-4)


def test_a_class_counts_by_its_weight() -> None:
    weights = np.array([0.5, 1.0, 3.0])
    predictions = tf.constant(PROBABILITIES[..., 1:])
    entropy = SegmentationLoss("binary_crossentropy", weights.tolist())
    of_label = np.take_along_axis(PROBABILITIES, LABELS[..., None], -1)[..., 0]
    expected = (-np.log(of_label) * weights[LABELS]).sum() / weights[LABELS].sum()
    assert float(entropy(tf.constant(MASKS), predictions)) == pytest.approx(expected, rel=1e-4)
    first, second = (dice(MASKS[..., k], PROBABILITIES[..., k + 1]) for k in range(2))
    overlap = SegmentationLoss("dice_loss", weights.tolist())
    expected = (first + 3 * second) / 4
    assert float(overlap(tf.constant(MASKS), predictions)) == pytest.approx(expected, rel=1e-5)
