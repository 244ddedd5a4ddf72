"""Metrics against numpy over a whole epoch, whatever the batches."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.components import metrics

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


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_the_size_of_a_batch_does_not_change_a_metric(batch: int) -> None:
    for metric in metrics.build_metrics():
        for start in range(0, 6, batch):
            part = slice(start, start + batch)
            metric.update_state(tf.constant(TRUTH[part]), tf.constant(PROBABILITY[part]))
        assert float(metric.result()) == pytest.approx(EXPECTED[metric.name], rel=1e-5)


def test_an_epoch_starts_from_nothing() -> None:
    metric = metrics.build_metrics()[0]
    metric.update_state(tf.constant(1 - TRUTH), tf.constant(PROBABILITY))
    metric.reset_state()
    metric.update_state(tf.constant(TRUTH), tf.constant(PROBABILITY))
    assert float(metric.result()) == pytest.approx(EXPECTED[metric.name], rel=1e-5)


def test_samples_of_weight_zero_do_not_count() -> None:
    weights = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.float32)
    padded = [tf.concat([array, array[:2]], axis=0) for array in (TRUTH, PROBABILITY)]
    for metric in metrics.build_metrics():
        metric.update_state(*padded, sample_weight=tf.constant(weights))
        assert float(metric.result()) == pytest.approx(EXPECTED[metric.name], rel=1e-5)
