"""Losses against their formulas in numpy."""

from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Train
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


def focal(y: np.ndarray, p: np.ndarray) -> float:
    of_label = np.where(y == 1, p, 1 - p)
    return float(np.mean(-((1 - of_label) ** 2) * np.log(of_label)))


def tversky(y: np.ndarray, p: np.ndarray) -> float:
    overlap, false, missed = (y * p).sum(), ((1 - y) * p).sum(), (y * (1 - p)).sum()
    return float(1 - (overlap + 1) / (overlap + 0.3 * false + 0.7 * missed + 1))


def lovasz(y: np.ndarray, p: np.ndarray) -> float:
    """From the definition: the errors in descending order, each times the IoU that it costs."""
    values = []
    for mask, errors in zip(y, np.abs(y - p), strict=True):
        wrong = np.zeros(mask.shape, bool)
        value = before = 0.0
        for position in np.argsort(-errors, axis=None):
            wrong.flat[position] = True
            missed, false = (wrong * mask).sum(), (wrong * (1 - mask)).sum()
            cost = (missed + false) / (mask.sum() + false)
            value, before = value + errors.flat[position] * (cost - before), cost
        values.append(value)
    return float(np.mean(values))


def boundary(y: np.ndarray, p: np.ndarray) -> float:
    def max_pool(maps: np.ndarray, side: int) -> np.ndarray:
        padded = np.pad(maps[..., 0], [(0, 0), *[(side // 2,) * 2] * 2], constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
        return windows.max((-1, -2))[..., None]

    true, predicted = (max_pool(1 - each, 3) - (1 - each) for each in (y, p))
    precision = ((predicted * max_pool(true, 5)).sum() + 1) / (predicted.sum() + 1)
    recall = ((true * max_pool(predicted, 5)).sum() + 1) / (true.sum() + 1)
    return float(1 - 2 * precision * recall / (precision + recall))


FORMULAS = {
    "bce": bce,
    "focal": focal,
    "dice": dice,
    "iou": iou,
    "tversky": tversky,
    "lovasz": lovasz,
    "boundary": boundary,
    "ssim": ssim,
}


def segmentation_loss(
    name: str, weights: Sequence[float] = (1.0, 1.0), **values: object
) -> SegmentationLoss:
    """The loss of some settings; weights: of the background and of each class."""
    classes = [f"class{index}" for index in range(1, len(weights))]
    by_class = dict(zip(("background", *classes), weights, strict=True))
    train = Train.model_validate({"loss": name, "class_weights": by_class, **values})
    return SegmentationLoss(train, classes)


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_a_loss_is_the_mean_of_its_terms(name: str) -> None:
    expected = np.mean([FORMULAS[term](TRUTH, PROBABILITY) for term in LOSS_TERMS[name]])
    loss = segmentation_loss(name)(tf.constant(TRUTH), tf.constant(PROBABILITY))
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["dice", "iou", "tversky"])
def test_a_region_by_sample_is_the_mean_over_the_samples(name: str) -> None:
    pairs = zip(TRUTH, PROBABILITY, strict=True)
    expected = np.mean([FORMULAS[name](mask, probability) for mask, probability in pairs])
    loss = segmentation_loss(f"{name}_loss", dice_per_sample=True)
    value = loss(tf.constant(TRUTH), tf.constant(PROBABILITY))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_label_smoothing_spreads_a_part_of_the_mask_over_all_classes() -> None:
    loss = segmentation_loss("binary_crossentropy", label_smoothing=0.2)
    expected = bce(0.8 * TRUTH + 0.1, PROBABILITY)
    value = loss(tf.constant(TRUTH), tf.constant(PROBABILITY))
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_samples_of_weight_zero_do_not_count(name: str) -> None:
    loss = segmentation_loss(name)
    two = loss(tf.constant(TRUTH[:2]), tf.constant(PROBABILITY[:2]))
    padded = loss(tf.constant(TRUTH), tf.constant(PROBABILITY), tf.constant([1.0, 1.0, 0.0]))
    assert float(padded) == pytest.approx(float(two), rel=1e-5)


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_certain_and_wrong_or_empty_has_a_finite_loss_and_gradient(name: str) -> None:
    nothing, everything = np.zeros_like(TRUTH), np.ones_like(TRUTH)
    loss = segmentation_loss(name)
    for mask in (nothing, everything):
        for values in (nothing, everything):
            probability = tf.constant(values)
            with tf.GradientTape() as tape:
                tape.watch(probability)
                value = loss(tf.constant(mask), probability)
            assert np.isfinite(float(value))
            assert np.isfinite(np.asarray(tape.gradient(value, probability))).all()


def test_half_precision_probabilities_are_raised_to_float32() -> None:
    half = tf.cast(PROBABILITY, tf.bfloat16)
    loss = segmentation_loss("bce_dice_loss")(tf.constant(TRUTH), half)
    assert loss.dtype == tf.float32


LABELS = RANDOM.integers(0, 3, (2, 16, 16))
MASKS = np.stack([LABELS == 1, LABELS == 2], -1).astype(np.float32)
PROBABILITIES = RANDOM.dirichlet(np.ones(3), (2, 16, 16)).astype(np.float32)


def test_several_classes_have_categorical_entropy_and_the_mean_dice() -> None:
    loss = segmentation_loss("bce_dice_loss", (1.0, 1.0, 1.0))
    value = float(loss(tf.constant(MASKS), tf.constant(PROBABILITIES[..., 1:])))
    of_label = np.take_along_axis(PROBABILITIES, LABELS[..., None], -1)
    mean_dice = np.mean([dice(MASKS[..., k], PROBABILITIES[..., k + 1]) for k in range(2)])
    assert value == pytest.approx((-np.log(of_label).mean() + mean_dice) / 2, rel=1e-4)


def test_a_class_counts_by_its_weight() -> None:
    weights = np.array([0.5, 1.0, 3.0])
    predictions = tf.constant(PROBABILITIES[..., 1:])
    entropy = segmentation_loss("binary_crossentropy", weights.tolist())
    of_label = np.take_along_axis(PROBABILITIES, LABELS[..., None], -1)[..., 0]
    expected = (-np.log(of_label) * weights[LABELS]).sum() / weights[LABELS].sum()
    assert float(entropy(tf.constant(MASKS), predictions)) == pytest.approx(expected, rel=1e-4)
    first, second = (dice(MASKS[..., k], PROBABILITIES[..., k + 1]) for k in range(2))
    overlap = segmentation_loss("dice_loss", weights.tolist())
    expected = (first + 3 * second) / 4
    assert float(overlap(tf.constant(MASKS), predictions)) == pytest.approx(expected, rel=1e-5)
