"""The losses of train.loss, in float32, over the global batch of all workers.

With y the mask (0 or 1) and p the probability of each pixel, summed over every pixel of the batch:

    binary_crossentropy = mean(-y log p - (1-y) log(1-p))
    dice_loss  = 1 - (2 Σyp + 1) / (Σy + Σp + 1)            (Milletari 2016, without squares)
    iou_loss   = 1 - (Σyp + 1) / (Σy + Σp - Σyp + 1)
    bce_dice_loss = (binary_crossentropy + dice_loss) / 2
    bce_iou_loss  = (binary_crossentropy + iou_loss) / 2
    basnet_hybrid_loss = (binary_crossentropy + ssim_loss + iou_loss) / 3     (Qin 2019)
    ssim_loss  = 1 - mean over samples of SSIM(y, p), 11 x 11 gaussian window (Wang 2004)

The sums are all-reduced before they are divided, so one worker with a batch of 8 and two workers
with 4 each compute the same loss and the same gradient.
"""

import tensorflow as tf
import tf_keras as keras

# Keeps log() finite; float32 cannot hold 1 - 1e-8.
_EPSILON = 1e-7
_SMOOTH = 1.0


class SegmentationLoss(keras.losses.Loss):
    """One of the losses above, by its name in the settings.

    y_true: [B, S, S, 1] of 0 and 1; y_pred: probabilities [B, S, S, 1]. A sample weight of 0
    excludes a sample (the padding of the last validation batch).
    """

    def __init__(self, name: str) -> None:
        # With this reduction Keras divides by the number of workers whose gradients it adds up.
        super().__init__(reduction=keras.losses.Reduction.SUM_OVER_BATCH_SIZE, name=name)

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The loss over the global batch, the same value on every worker."""
        mask, probability = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
        weight = tf.ones(tf.shape(mask)[:1]) if sample_weight is None else sample_weight
        weight = tf.reshape(tf.cast(weight, tf.float32), [-1, 1, 1, 1])
        return self.combine_sums(all_reduce_sum(batch_sums(mask, probability, weight, self.name)))

    def combine_sums(self, total: tf.Tensor) -> tf.Tensor:
        """The mean of the loss's terms, from the [7] sums over all workers."""
        pixels, entropy, overlap, true, predicted, samples, similarity = tf.unstack(total)
        union = true + predicted - overlap
        terms = {
            "bce": entropy / pixels,
            "dice": 1.0 - (2.0 * overlap + _SMOOTH) / (true + predicted + _SMOOTH),
            "iou": 1.0 - (overlap + _SMOOTH) / (union + _SMOOTH),
            "ssim": 1.0 - similarity / samples,
        }
        return tf.add_n([terms[term] for term in LOSS_TERMS[self.name]]) / len(
            LOSS_TERMS[self.name]
        )


LOSS_TERMS = {
    "binary_crossentropy": ("bce",),
    "dice_loss": ("dice",),
    "bce_dice_loss": ("bce", "dice"),
    "iou_loss": ("iou",),
    "bce_iou_loss": ("bce", "iou"),
    "basnet_hybrid_loss": ("bce", "ssim", "iou"),
}


def batch_sums(mask: tf.Tensor, probability: tf.Tensor, weight: tf.Tensor, name: str) -> tf.Tensor:
    """[7] this worker's part of every sum that the losses divide; SSIM only if it is needed."""
    safe = tf.clip_by_value(probability, _EPSILON, 1.0 - _EPSILON)
    entropy = -mask * tf.math.log(safe) - (1.0 - mask) * tf.math.log(1.0 - safe)
    samples = tf.reduce_sum(weight)
    similarity = (
        tf.reduce_sum(tf.image.ssim(mask, probability, max_val=1.0) * tf.reshape(weight, [-1]))
        if "ssim" in LOSS_TERMS[name]
        else tf.constant(0.0)
    )
    return tf.stack(
        [
            samples * tf.cast(tf.reduce_prod(tf.shape(mask)[1:]), tf.float32),
            tf.reduce_sum(weight * entropy),
            tf.reduce_sum(weight * mask * probability),
            tf.reduce_sum(weight * mask),
            tf.reduce_sum(weight * probability),
            samples,
            similarity,
        ]
    )


def all_reduce_sum(values: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over all workers, through which gradients flow."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)
