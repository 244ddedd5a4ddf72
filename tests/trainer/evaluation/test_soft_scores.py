"""Soft scores of an evaluation are the loss and the metric of the training over the same slices."""

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Train
from trainer.components.class_maps import one_hot
from trainer.components.losses import SegmentationLoss
from trainer.components.metrics import SegmentationMetrics
from trainer.evaluation.soft_scores import SoftScorer

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("loss", ["bce_dice_loss", "basnet_hybrid_loss"])
@pytest.mark.parametrize("classes", [("liver",), ("liver", "kidney")])
def test_they_are_those_of_training(loss: str, classes: tuple[str, ...]) -> None:
    train = Train.model_validate({"loss": loss, "class_weights": {"liver": 2.0}})
    masks = RANDOM.integers(0, len(classes) + 1, (3, 16, 20), np.uint8)
    maps = RANDOM.random((3, 16, 20, len(classes) + 1), np.float32)
    probability = (maps / maps.sum(-1, keepdims=True))[..., 1:]

    scorer = SoftScorer(train, classes)
    sums = [scorer.sum_slice(mask, maps) for mask, maps in zip(masks, probability, strict=True)]
    score = scorer.score(sums)

    y_true, predicted = one_hot(tf.constant(masks), len(classes)), tf.constant(probability)
    trained = SegmentationLoss(train, classes)(y_true, predicted)
    metrics = SegmentationMetrics(classes)
    metrics.update_state(y_true, predicted)
    assert score.loss == pytest.approx(float(trained), rel=1e-5)
    assert np.mean(score.dice_coef) == pytest.approx(float(metrics.result()["dice_coef"]), rel=1e-5)


def test_a_slice_may_be_smaller_than_the_window_of_ssim() -> None:
    scorer = SoftScorer(Train(loss="basnet_hybrid_loss"), ["liver"])
    mask, perfect = np.ones((1, 1), np.uint8), np.ones((1, 1, 1), np.float32)
    score = scorer.score([scorer.sum_slice(mask, perfect)])
    assert score.loss == pytest.approx(0.0, abs=1e-5)
    assert score.dice_coef == (1.0,)
