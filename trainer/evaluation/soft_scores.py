"""The loss and the soft Dice of a bundle on a split: of its probabilities, as during training.

They compare with val_loss and val_dice_coef of a run, and with the evaluation of other tools that
use probabilities. The metrics to report are those of masks (contract.confusion).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.config import Train
from trainer.components.class_maps import one_hot
from trainer.components.losses import LOSS_TERMS, SegmentationLoss, batch_sums, soft_dice
from trainer.evaluation.scores import SoftScore

# The side of the window of SSIM.
_SSIM_SIZE = 11

SliceSums = NDArray[np.float64]
"""The sums over the pixels of a slice that the scores are computed from, [4 + 3 K]."""


class SoftScorer:
    """Computes the soft scores, with the loss that a bundle was trained with."""

    def __init__(self, train: Train, classes: Sequence[str]) -> None:
        self._loss = SegmentationLoss(train.loss, train.loss_weights(classes))
        self._smallest_side = _SSIM_SIZE if "ssim" in LOSS_TERMS[train.loss] else 1

    def sum_slice(self, mask: NDArray[np.uint8], probability: NDArray[np.float32]) -> SliceSums:
        """The sums over a slice; mask: class indices [H, W]; probability: [H, W, K]."""
        # A slice that is smaller than the window of SSIM is padded by repeating its border.
        missing = [(0, max(0, self._smallest_side - side)) for side in mask.shape]
        mask = np.pad(mask, missing, "edge")
        probability = np.pad(probability, [*missing, (0, 0)], "edge")
        y_true = one_hot(tf.constant(mask[None]), probability.shape[-1])
        sums = batch_sums(
            y_true,
            tf.constant(probability[None]),
            tf.ones([1, 1, 1, 1]),
            self._loss.name,
            self._loss.class_weights,
        )
        return sums.numpy().astype(np.float64)

    def score(self, slices: Iterable[SliceSums]) -> SoftScore:
        """The scores over all pixels of some slices."""
        total = tf.constant(np.sum(list(slices), axis=0), tf.float32)
        loss = float(self._loss.combine_sums(total))
        return SoftScore(loss, tuple(soft_dice(*tf.split(total[4:], 3)).numpy().tolist()))
