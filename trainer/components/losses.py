"""The losses of the settings, in float32, over the whole batch of all workers.

With y the truth (0 or 1) and p the probability of each pixel, sums over every pixel of the batch:

    binary_crossentropy = mean(-y log p - (1-y) log(1-p))
    dice_loss  = 1 - (2 Σyp + 1) / (Σy + Σp + 1)            (Milletari 2016, without squares)
    iou_loss   = 1 - (Σyp + 1) / (Σy + Σp - Σyp + 1)
    bce_dice_loss = (binary_crossentropy + dice_loss) / 2
    bce_iou_loss  = (binary_crossentropy + iou_loss) / 2
    basnet_hybrid_loss = (binary_crossentropy + ssim_loss + iou_loss) / 3     (Qin 2019)
    ssim_loss  = 1 - mean over samples of SSIM(y, p), 11 x 11 gaussian window (Wang 2004)

The sums are all-reduced before they are divided, so one worker with a batch of 8 and two with 4
each compute the same loss and the same gradient.
"""

import tensorflow as tf
import tf_keras as keras

# Keeps log() finite; float32 cannot hold 1 - 1e-8.
_EPSILON = 1e-7
_SMOOTH = 1.0


class SegmentationLoss(keras.losses.Loss):
    """One of the losses above, by its name in the settings.

    Truth [B, S, S, 1] of 0 and 1, probabilities [B, S, S, 1]; a sample weight of 0 leaves a
    sample out (the padding of the last validation batch).
    """

    def __init__(self, name: str) -> None:
        # Under this reduction Keras itself divides by the workers whose gradients it adds up.
        super().__init__(reduction=keras.losses.Reduction.SUM_OVER_BATCH_SIZE, name=name)

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The loss over the whole batch, the same number on every worker."""
        truth, probability = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
        weight = tf.ones(tf.shape(truth)[:1]) if sample_weight is None else sample_weight
        weight = tf.reshape(tf.cast(weight, tf.float32), [-1, 1, 1, 1])
        return self.combine_sums(all_reduce_sum(batch_sums(truth, probability, weight, self.name)))

    def combine_sums(self, total: tf.Tensor) -> tf.Tensor:
        """The mean of the terms the name is made of, from the [7] sums over all workers."""
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


def batch_sums(truth: tf.Tensor, probability: tf.Tensor, weight: tf.Tensor, name: str) -> tf.Tensor:
    """[7] this worker's share of every sum the losses divide; SSIM only where it is asked for."""
    safe = tf.clip_by_value(probability, _EPSILON, 1.0 - _EPSILON)
    entropy = -truth * tf.math.log(safe) - (1.0 - truth) * tf.math.log(1.0 - safe)
    one = tf.reduce_sum(weight)
    similarity = (
        tf.reduce_sum(tf.image.ssim(truth, probability, max_val=1.0) * tf.reshape(weight, [-1]))
        if "ssim" in LOSS_TERMS[name]
        else tf.constant(0.0)
    )
    return tf.stack(
        [
            one * tf.cast(tf.reduce_prod(tf.shape(truth)[1:]), tf.float32),
            tf.reduce_sum(weight * entropy),
            tf.reduce_sum(weight * truth * probability),
            tf.reduce_sum(weight * truth),
            tf.reduce_sum(weight * probability),
            one,
            similarity,
        ]
    )


def all_reduce_sum(values: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over all workers, through which gradients flow."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)
