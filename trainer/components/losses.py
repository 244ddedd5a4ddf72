"""The losses of train.loss, in float32, over the global batch of all workers.

With y_k the mask of class k (0 or 1), p_k its probability and w_k its weight (1 unless
train.class_weights sets it), y_0 and p_0 those of the background, and sums over all pixels of the
batch:

    binary_crossentropy = Σ_k Σ -w_k y_k log p_k / Σ_k Σ w_k y_k, k from 0
    dice_loss  = mean_k 1 - (2 Σ y_k p_k + 1) / (Σ y_k + Σ p_k + 1)
    iou_loss   = mean_k 1 - (Σ y_k p_k + 1) / (Σ y_k + Σ p_k - Σ y_k p_k + 1)
    bce_dice_loss = (binary_crossentropy + dice_loss) / 2
    bce_iou_loss  = (binary_crossentropy + iou_loss) / 2
    basnet_hybrid_loss = (binary_crossentropy + ssim_loss + iou_loss) / 3
    ssim_loss  = 1 - mean over samples and classes of SSIM(y, p), 11 x 11 gaussian window

(Milletari 2016, without squares; Qin 2019 for basnet_hybrid_loss; Wang 2004 for SSIM.)

mean_k is over the classes from k = 1, weighted by w_k. With one class these are the binary losses;
with several, binary_crossentropy is the categorical cross-entropy. The sums are all-reduced before
they are divided, so one worker with a batch of 8 and two workers with 4 each compute the same loss
and the same gradient.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from trainer.networks.outputs import OutputLayout

# Keeps log() finite; float32 cannot hold 1 - 1e-8.
_EPSILON = 1e-7
_SMOOTH = 1.0


class SegmentationLoss(keras.losses.Loss):
    """One of the losses above, by its name in the settings.

    y_true: [B, H, W, K] of 0 and 1; y_pred: probabilities, of which OutputLayout says where the
    outputs of the network are: [B, H, W, K] if it has one. With deep supervision the loss is the
    weighted mean over the outputs; the presence of a class in a slice adds its binary
    cross-entropy. A sample weight of 0 excludes a sample: the padding of the last batch.
    """

    def __init__(
        self,
        name: str,
        class_weights: Sequence[float] = (1.0, 1.0),
        layout: OutputLayout | None = None,
    ) -> None:
        """Args:
        name: The name of the loss.
        class_weights: Of the background and of each class, K + 1 numbers.
        layout: Where the outputs of the network are; absent: it has one.
        """
        # With this reduction Keras divides by the number of workers whose gradients it adds up.
        super().__init__(reduction=keras.losses.Reduction.SUM_OVER_BATCH_SIZE, name=name)
        self.class_weights = tuple(class_weights)
        self.layout = layout or OutputLayout(len(self.class_weights) - 1)

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The loss over the batches of all workers, a scalar."""
        mask, maps = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
        weight = tf.ones(tf.shape(mask)[:1]) if sample_weight is None else sample_weight
        weight = tf.reshape(tf.cast(weight, tf.float32), [-1, 1, 1, 1])
        sums = [
            batch_sums(mask, probability, weight, self.name, self.class_weights)
            for probability in self.layout.split_probabilities(maps)
        ]
        if self.layout.has_presence:
            sums.append(presence_sums(mask, self.layout.presence(maps), weight))
        total = all_reduce_sum(tf.concat(sums, 0))
        size = 4 + 3 * self.layout.num_classes
        losses = [
            share * self.combine_sums(total[index * size : (index + 1) * size])
            for index, share in enumerate(self.layout.weights)
        ]
        if self.layout.has_presence:
            losses.append(total[-2] / total[-1])
        return tf.add_n(losses)

    def combine_sums(self, total: tf.Tensor) -> tf.Tensor:
        """The mean of the loss's terms, from the [4 + 3 K] sums over all workers."""
        pixel_weights, entropy, samples, similarity = tf.unstack(total[:4])
        overlap, true, predicted = tf.split(total[4:], 3)
        union = true + predicted - overlap
        terms = {
            "bce": entropy / pixel_weights,
            "dice": self._mean(1.0 - soft_dice(overlap, true, predicted)),
            "iou": self._mean(1.0 - (overlap + _SMOOTH) / (union + _SMOOTH)),
            "ssim": 1.0 - similarity / samples,
        }
        return tf.add_n([terms[term] for term in LOSS_TERMS[self.name]]) / len(
            LOSS_TERMS[self.name]
        )

    def _mean(self, values: tf.Tensor) -> tf.Tensor:
        """The mean over the classes, weighted."""
        weights = tf.constant(self.class_weights[1:])
        return tf.reduce_sum(weights * values) / tf.reduce_sum(weights)


def soft_dice(overlap: tf.Tensor, true: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """(2 Σyp + 1) / (Σy + Σp + 1), from the three sums of each class [K]."""
    return (2.0 * overlap + _SMOOTH) / (true + predicted + _SMOOTH)


LOSS_TERMS = {
    "binary_crossentropy": ("bce",),
    "dice_loss": ("dice",),
    "bce_dice_loss": ("bce", "dice"),
    "iou_loss": ("iou",),
    "bce_iou_loss": ("bce", "iou"),
    "basnet_hybrid_loss": ("bce", "ssim", "iou"),
}


def batch_sums(
    mask: tf.Tensor,
    probability: tf.Tensor,
    weight: tf.Tensor,
    name: str,
    class_weights: Sequence[float],
) -> tf.Tensor:
    """[4 + 3 K] this worker's part of every sum that the losses divide; SSIM only if needed.

    The weights of the pixels, their entropy, samples and similarity; then the overlap, the mask and
    the probability of each class.
    """
    masks, probabilities = tf.unstack(mask, axis=-1), tf.unstack(probability, axis=-1)
    weight_2d = tf.squeeze(weight, -1)
    planes = list(
        zip(
            class_weights,
            [1.0 - tf.add_n(masks), *masks],
            [1.0 - tf.add_n(probabilities), *probabilities],
            strict=True,
        )
    )
    entropy = [
        -class_weight * tf.reduce_sum(weight_2d * y * tf.math.log(tf.maximum(p, _EPSILON)))
        for class_weight, y, p in planes
    ]
    pixels = [class_weight * tf.reduce_sum(weight_2d * y) for class_weight, y, _ in planes]
    similarity = (
        tf.reduce_sum(tf.image.ssim(mask, probability, max_val=1.0) * tf.reshape(weight, [-1]))
        if "ssim" in LOSS_TERMS[name]
        else tf.constant(0.0)
    )
    overlaps = [y * p for y, p in zip(masks, probabilities, strict=True)]
    by_class = [tf.reduce_sum(weight_2d * plane) for plane in (*overlaps, *masks, *probabilities)]
    return tf.stack(
        [tf.add_n(pixels), tf.add_n(entropy), tf.reduce_sum(weight), similarity, *by_class]
    )


def presence_sums(mask: tf.Tensor, presence: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """[2] this worker's binary cross-entropy of the presence [B, K], and how many it adds up."""
    present = tf.reduce_max(mask, axis=[1, 2])
    entropy = -present * tf.math.log(tf.maximum(presence, _EPSILON)) - (
        1.0 - present
    ) * tf.math.log(tf.maximum(1.0 - presence, _EPSILON))
    sample_weight = tf.reshape(weight, [-1, 1]) * tf.ones_like(present)
    return tf.stack([tf.reduce_sum(sample_weight * entropy), tf.reduce_sum(sample_weight)])


def all_reduce_sum(values: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over all workers, through which gradients flow.

    Every worker must compute the same value from the sum. Then its gradient is the same on every
    worker too, and their sum, which the gradient of an all-reduce is, needs no collective.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values

    @tf.custom_gradient
    def reduce(local: tf.Tensor) -> Any:
        total = replica.all_reduce(tf.distribute.ReduceOp.SUM, local)
        return total, lambda gradient: gradient * replica.num_replicas_in_sync

    return reduce(values)
