"""Metrics against numpy over a whole epoch, whatever the batches."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.components.metrics import SegmentationMetrics

RANDOM = np.random.default_rng(1)
TRUTH = (RANDOM.random((6, 8, 8, 1)) > 0.7).astype(np.float32)
PROBABILITY = RANDOM.random((6, 8, 8, 1)).astype(np.float32)
POSITIVE = PROBABILITY > 0.5

EXPECTED = {
    "dice_coef": (2 * (TRUTH * PROBABILITY).sum() + 1) / (TRUTH.sum() + PROBABILITY.sum() + 1),
    "iou_coef": ((TRUTH * PROBABILITY).sum() + 1)
    / (TRUTH.sum() + PROBABILITY.sum() - (TRUTH * PROBABILITY).sum() + 1),
    "sensitivity": ((TRUTH * POSITIVE).sum() + 1) / (TRUTH.sum() + 1),
    "specificity": (((1 - TRUTH) * ~POSITIVE).sum() + 1) / ((1 - TRUTH).sum() + 1),
    "binary_accuracy": (TRUTH.astype(bool) == POSITIVE).mean(),
}


def results(metric: SegmentationMetrics) -> dict[str, float]:
    return {name: float(value) for name, value in metric.result().items()}


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_the_size_of_a_batch_does_not_change_a_metric(batch: int) -> None:
    metric = SegmentationMetrics(["foreground"])
    for start in range(0, 6, batch):
        part = slice(start, start + batch)
        metric.update_state(tf.constant(TRUTH[part]), tf.constant(PROBABILITY[part]))
    assert results(metric) == pytest.approx(EXPECTED, rel=1e-5)


def test_an_epoch_starts_from_nothing() -> None:
    metric = SegmentationMetrics(["foreground"])
    metric.update_state(tf.constant(1 - TRUTH), tf.constant(PROBABILITY))
    metric.reset_state()
    metric.update_state(tf.constant(TRUTH), tf.constant(PROBABILITY))
    assert results(metric) == pytest.approx(EXPECTED, rel=1e-5)


def test_samples_of_weight_zero_do_not_count() -> None:
    weights = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.float32)
    padded = [tf.concat([array, array[:2]], axis=0) for array in (TRUTH, PROBABILITY)]
    metric = SegmentationMetrics(["foreground"])
    metric.update_state(*padded, sample_weight=tf.constant(weights))
    assert results(metric) == pytest.approx(EXPECTED, rel=1e-5)


def test_every_class_has_its_metrics_and_their_mean() -> None:
    labels = RANDOM.integers(0, 4, (3, 8, 8))
    probability = RANDOM.dirichlet(np.ones(4), (3, 8, 8)).astype(np.float32)
    predicted = probability.argmax(axis=-1)
    metric = SegmentationMetrics(["liver", "kidney", "spleen"])
    masks = np.stack([labels == index for index in (1, 2, 3)], -1).astype(np.float32)
    metric.update_state(tf.constant(masks), tf.constant(probability[..., 1:]))
    values = results(metric)
    assert len(values) == 5 * 4
    dice = []
    for index, name in enumerate(("liver", "kidney", "spleen"), start=1):
        y, p, hit = labels == index, probability[..., index], predicted == index
        dice.append((2 * (y * p).sum() + 1) / (y.sum() + p.sum() + 1))
        assert values[f"dice_coef_{name}"] == pytest.approx(dice[-1], rel=1e-5)
        sensitivity = ((y & hit).sum() + 1) / (y.sum() + 1)
        assert values[f"sensitivity_{name}"] == pytest.approx(sensitivity, rel=1e-5)
        assert values[f"binary_accuracy_{name}"] == pytest.approx((y == hit).mean(), rel=1e-5)
    assert values["dice_coef"] == pytest.approx(np.mean(dice), rel=1e-5)
