"""The losses of train.loss, in float32, over the global batch of all workers.

With y_k the mask of class k (0 or 1), p_k its probability and w_k its weight (1 unless
train.class_weights sets it), y_0 and p_0 those of the background, and sums over all pixels of the
batch:

    binary_crossentropy = Σ_k Σ -w_k y_k log p_k / Σ_k Σ w_k y_k, k from 0
    focal_loss   = Σ_k Σ -w_k y_k (1 - p_k)^gamma log p_k / Σ_k Σ w_k y_k, k from 0
    dice_loss    = mean_k 1 - (2 Σ y_k p_k + 1) / (Σ y_k + Σ p_k + 1)
    iou_loss     = mean_k 1 - (Σ y_k p_k + 1) / (Σ y_k + Σ p_k - Σ y_k p_k + 1)
    tversky_loss = mean_k 1 - (Σ y_k p_k + 1) /
                              (Σ y_k p_k + alpha Σ (1 - y_k) p_k + beta Σ y_k (1 - p_k) + 1)

and the others in `trainer.components.loss_terms`, with their papers. A loss of several terms is
their mean: bce_dice_loss = (binary_crossentropy + dice_loss) / 2.

mean_k is over the classes from k = 1, weighted by w_k. With one class these are the binary losses;
with several, binary_crossentropy is the categorical cross-entropy. train.label_smoothing smooths
the masks of the cross-entropy; with train.dice_per_sample, dice_loss, iou_loss and tversky_loss are
computed from the sums over each slice, and averaged over the slices. The sums are all-reduced
before they are divided, so one worker with a batch of 8 and two workers with 4 each compute the
same loss and the same gradient.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from contract.config import Train
from trainer.components.loss_terms import (
    EPSILON,
    BatchMaps,
    Boundary,
    CrossEntropy,
    LossTerm,
    Lovasz,
    Region,
    StructuralSimilarity,
    dice_formula,
    iou_formula,
    tversky_formula,
)
from trainer.networks.outputs import OutputLayout


class SegmentationLoss(keras.losses.Loss):
    """The loss of the settings.

    y_true: [B, H, W, K] of 0 and 1; y_pred: probabilities, of which OutputLayout says where the
    outputs of the network are: [B, H, W, K] if it has one. With deep supervision the loss is the
    weighted mean over the outputs; the presence of a class in a slice adds its binary
    cross-entropy. A sample weight of 0 excludes a sample: the padding of the last batch.
    """

    def __init__(
        self, train: Train, classes: Sequence[str], layout: OutputLayout | None = None
    ) -> None:
        """Args:
        train: The settings of the training.
        classes: The names of the classes.
        layout: Where the outputs of the network are; absent: it has one.
        """
        # With this reduction Keras divides by the number of workers whose gradients it adds up.
        super().__init__(reduction=keras.losses.Reduction.SUM_OVER_BATCH_SIZE, name=train.loss)
        weights = train.loss_weights(classes)
        self.terms = [_TERMS[term](train, weights) for term in LOSS_TERMS[train.loss]]
        self.layout = layout or OutputLayout(len(classes))

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The loss over the batches of all workers, a scalar."""
        mask, maps = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
        weight = tf.ones(tf.shape(mask)[:1]) if sample_weight is None else sample_weight
        weight = tf.reshape(tf.cast(weight, tf.float32), [-1])
        sums = [
            self.batch_sums(BatchMaps(mask, probability, weight))
            for probability in self.layout.split_probabilities(maps)
        ]
        if self.layout.has_presence:
            sums.append(presence_sums(mask, self.layout.presence(maps), weight))
        total = all_reduce_sum(tf.concat(sums, 0))
        losses = [
            share * self.combine_sums(total[index * self.size : (index + 1) * self.size])
            for index, share in enumerate(self.layout.weights)
        ]
        if self.layout.has_presence:
            losses.append(total[-2] / total[-1])
        return tf.add_n(losses)

    @property
    def size(self) -> int:
        """The number of sums that the loss of one output is computed from."""
        return sum(term.size for term in self.terms)

    @property
    def min_side(self) -> int:
        """Pixels that a slice must have along each axis."""
        return max(term.min_side for term in self.terms)

    def batch_sums(self, maps: BatchMaps) -> tf.Tensor:
        """This worker's part of the sums, [size]."""
        return tf.concat([term.batch_sums(maps) for term in self.terms], 0)

    def combine_sums(self, total: tf.Tensor) -> tf.Tensor:
        """The mean of the terms, from the sums [size] over all workers."""
        parts = tf.split(total, [term.size for term in self.terms])
        values = [term.combine(part) for term, part in zip(self.terms, parts, strict=True)]
        return tf.add_n(values) / len(values)


LOSS_TERMS: Mapping[str, Sequence[str]] = {
    "binary_crossentropy": ("bce",),
    "focal_loss": ("focal",),
    "dice_loss": ("dice",),
    "bce_dice_loss": ("bce", "dice"),
    "bce_dice_boundary_loss": ("bce", "dice", "boundary"),
    "iou_loss": ("iou",),
    "bce_iou_loss": ("bce", "iou"),
    "tversky_loss": ("tversky",),
    "lovasz_loss": ("lovasz",),
    "bce_lovasz_loss": ("bce", "lovasz"),
    "basnet_hybrid_loss": ("bce", "ssim", "iou"),
}

_TERMS: Mapping[str, Callable[[Train, Sequence[float]], LossTerm]] = {
    "bce": lambda train, weights: CrossEntropy(weights, train.label_smoothing),
    "focal": lambda train, weights: CrossEntropy(weights, train.label_smoothing, train.focal_gamma),
    "dice": lambda train, weights: Region(weights, dice_formula, train.dice_per_sample),
    "iou": lambda train, weights: Region(weights, iou_formula, train.dice_per_sample),
    "tversky": lambda train, weights: Region(
        weights, tversky_formula(train.tversky_alpha, train.tversky_beta), train.dice_per_sample
    ),
    "lovasz": lambda train, weights: Lovasz(weights),
    "boundary": lambda train, weights: Boundary(weights, train.boundary_width),
    "ssim": lambda train, weights: StructuralSimilarity(),
}


def presence_sums(mask: tf.Tensor, presence: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """[2] this worker's binary cross-entropy of the presence [B, K], and how many it adds up."""
    present = tf.reduce_max(mask, axis=[1, 2])
    entropy = -present * tf.math.log(tf.maximum(presence, EPSILON)) - (1.0 - present) * tf.math.log(
        tf.maximum(1.0 - presence, EPSILON)
    )
    sample_weight = weight[:, None] * tf.ones_like(present)
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
