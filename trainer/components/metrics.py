"""The metrics during training, over all pixels of an epoch and all workers.

With y the mask and p the probability of each pixel, summed over the epoch (averaging batches
instead would make the value depend on the batch size):

    dice_coef       = (2 Σyp + 1) / (Σy + Σp + 1)
    iou_coef        = (Σyp + 1) / (Σy + Σp - Σyp + 1)
    sensitivity     = (Σy[p>½] + 1) / (Σy + 1)
    specificity     = (Σ(1-y)[p≤½] + 1) / (Σ(1-y) + 1)
    binary_accuracy = fraction of pixels with [p>½] = y

They select checkpoints; the metrics to report are the hard ones per patient of `evaluate`.
"""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

_SMOOTH = 1.0


class PixelMetric(keras.metrics.Metric):
    """A metric made of sums over pixels, which add up exactly over batches and workers."""

    def __init__(self, name: str, formula: Callable[..., tf.Tensor]) -> None:
        super().__init__(name=name, dtype=tf.float32)
        self.formula = formula
        # Σyp, Σy, Σp, Σ[p>½], Σy[p>½], Σ1 in one vector: one all-reduce per step instead of six.
        self.sums = self.add_weight(name="sums", shape=(6,), initializer="zeros")

    def update_state(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Add a batch: masks and probabilities [B, S, S, 1]; samples of weight 0 do not count."""
        mask, probability = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
        weight = tf.ones(tf.shape(mask)[:1]) if sample_weight is None else sample_weight
        weight = tf.reshape(tf.cast(weight, tf.float32), [-1, 1, 1, 1])
        positive = tf.cast(probability > 0.5, tf.float32)
        parts = [mask * probability, mask, probability, positive, mask * positive]
        totals = [tf.reduce_sum(weight * part) for part in parts]
        self.sums.assign_add(tf.stack([*totals, tf.reduce_sum(weight * tf.ones_like(mask))]))

    def reset_state(self) -> None:
        """Reset the sums; the method of Keras assigns a scalar, which fails for a vector."""
        self.sums.assign(tf.zeros_like(self.sums))

    def result(self) -> tf.Tensor:
        """The formula over everything added since the start of the epoch."""
        return self.formula(*tf.unstack(self.sums))


def dice_coef(yp: tf.Tensor, y: tf.Tensor, p: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
    """Soft Dice coefficient."""
    return (2.0 * yp + _SMOOTH) / (y + p + _SMOOTH)


def iou_coef(yp: tf.Tensor, y: tf.Tensor, p: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
    """Soft intersection over union."""
    return (yp + _SMOOTH) / (y + p - yp + _SMOOTH)


def sensitivity(
    _yp: tf.Tensor, y: tf.Tensor, _p: tf.Tensor, _positive: tf.Tensor, hit: tf.Tensor, _: tf.Tensor
) -> tf.Tensor:
    """Fraction of the foreground that is predicted."""
    return (hit + _SMOOTH) / (y + _SMOOTH)


def specificity(
    _yp: tf.Tensor, y: tf.Tensor, _p: tf.Tensor, positive: tf.Tensor, hit: tf.Tensor, n: tf.Tensor
) -> tf.Tensor:
    """Fraction of the background that is not predicted."""
    return (n - y - (positive - hit) + _SMOOTH) / (n - y + _SMOOTH)


def binary_accuracy(
    _yp: tf.Tensor, y: tf.Tensor, _p: tf.Tensor, positive: tf.Tensor, hit: tf.Tensor, n: tf.Tensor
) -> tf.Tensor:
    """Fraction of pixels that are classified correctly with a threshold of one half."""
    return (n - y - positive + 2.0 * hit) / n


FORMULAS = (dice_coef, iou_coef, sensitivity, specificity, binary_accuracy)


def build_metrics() -> list[PixelMetric]:
    """New metrics for one model, named as in train_metrics.csv."""
    return [PixelMetric(formula.__name__, formula) for formula in FORMULAS]
