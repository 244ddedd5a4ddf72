"""The metrics during training, over all pixels of an epoch and all workers.

With y the mask of a class and p its probability, ŷ = 1 where the class is predicted (p > ½ with one
class, the most probable of the background and the classes otherwise), summed over the epoch
(averaging batches instead would make the value depend on the batch size):

    dice_coef       = (2 Σyp + 1) / (Σy + Σp + 1)
    iou_coef        = (Σyp + 1) / (Σy + Σp - Σyp + 1)
    sensitivity     = (Σyŷ + 1) / (Σy + 1)
    specificity     = (Σ(1-y)(1-ŷ) + 1) / (Σ(1-y) + 1)
    binary_accuracy = fraction of pixels with ŷ = y

With several classes each metric is the mean over the classes, and that of a class follows with its
name, such as dice_coef_liver. They select checkpoints; the metrics to report are the hard ones per
patient of `evaluate`.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from trainer.components.class_maps import class_indices, one_hot

_SMOOTH = 1.0


class SegmentationMetrics(keras.metrics.Metric):
    """All metrics above, made of sums over pixels, which add up exactly over batches and workers.

    One object for all, because reading a variable of a metric is a collective.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """classes: the names of the classes."""
        super().__init__(name="segmentation", dtype=tf.float32)
        self.classes = tuple(classes)
        # Σyp, Σy, Σp, Σŷ, Σyŷ of each class; then Σ1, repeated.
        self.sums = self.add_weight(name="sums", shape=(6, len(classes)), initializer="zeros")

    def update_state(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Add a batch: masks and probabilities [B, H, W, K]; samples of weight 0 do not count.

        Further channels of y_pred are the side outputs of a network, which are not measured.
        """
        mask = tf.cast(y_true, tf.float32)
        probability = tf.cast(y_pred[:, :, :, : len(self.classes)], tf.float32)
        weight = tf.ones(tf.shape(mask)[:1]) if sample_weight is None else sample_weight
        weight = tf.reshape(tf.cast(weight, tf.float32), [-1, 1, 1, 1])
        predicted = one_hot(class_indices(probability), len(self.classes))
        parts = [
            mask * probability,
            mask,
            probability,
            predicted,
            mask * predicted,
            tf.ones_like(mask),
        ]
        self.sums.assign_add(tf.stack([_sum_pixels(weight * part) for part in parts]))

    def reset_state(self) -> None:
        """Reset the sums; the method of Keras assigns a scalar, which fails for a matrix."""
        # Reading the sums, also as the result of an assignment, would be a collective.
        self.sums.assign(tf.zeros(self.sums.shape), read_value=False)

    def result(self) -> dict[str, tf.Tensor]:
        """Every metric over everything added since the start of the epoch, by name."""
        by_class = compute_metrics(*tf.unstack(self.sums))
        metrics = {name: tf.reduce_mean(values) for name, values in by_class.items()}
        if len(self.classes) > 1:
            for name, values in by_class.items():
                for index, class_name in enumerate(self.classes):
                    metrics[f"{name}_{class_name}"] = values[index]
        return metrics


def _sum_pixels(maps: tf.Tensor) -> tf.Tensor:
    """[K] sums of [B, H, W, K]; plane by plane, because a short last axis is slow on a CPU."""
    return tf.stack([tf.reduce_sum(plane) for plane in tf.unstack(maps, axis=-1)])


def compute_metrics(
    yp: tf.Tensor, y: tf.Tensor, p: tf.Tensor, predicted: tf.Tensor, hit: tf.Tensor, n: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The metrics of each class [K], by name.

    Args: the sums [K] of y p, y, p, ŷ, y ŷ and 1.
    """
    negatives, true_negatives = n - y, n - y - (predicted - hit)
    return {
        "dice_coef": (2.0 * yp + _SMOOTH) / (y + p + _SMOOTH),
        "iou_coef": (yp + _SMOOTH) / (y + p - yp + _SMOOTH),
        "sensitivity": (hit + _SMOOTH) / (y + _SMOOTH),
        "specificity": (true_negatives + _SMOOTH) / (negatives + _SMOOTH),
        "binary_accuracy": (true_negatives + hit) / n,
    }
