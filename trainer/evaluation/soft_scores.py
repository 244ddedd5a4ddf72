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
from trainer.components.loss_terms import BatchMaps, region_sums, soft_dice
from trainer.components.losses import SegmentationLoss
from trainer.evaluation.scores import SoftScore

SliceSums = NDArray[np.float64]
"""The sums over the pixels of a slice that the scores are computed from: those of the soft Dice,
3 K, and those of the loss."""


class SoftScorer:
    """Computes the soft scores, with the loss that a bundle was trained with."""

    def __init__(self, train: Train, classes: Sequence[str]) -> None:
        self._loss = SegmentationLoss(train, classes)
        self._dice_sums = 3 * len(classes)

    def sum_slice(self, mask: NDArray[np.uint8], probability: NDArray[np.float32]) -> SliceSums:
        """The sums over a slice; mask: class indices [H, W]; probability: [H, W, K]."""
        # A slice that is smaller than the window of SSIM is padded by repeating its border.
        missing = [(0, max(0, self._loss.min_side - side)) for side in mask.shape]
        mask = np.pad(mask, missing, "edge")
        probability = np.pad(probability, [*missing, (0, 0)], "edge")
        y_true = one_hot(tf.constant(mask[None]), probability.shape[-1])
        maps = BatchMaps(y_true, tf.constant(probability[None]), tf.ones([1]))
        sums = tf.concat([region_sums(maps), self._loss.batch_sums(maps)], 0)
        return sums.numpy().astype(np.float64)

    def score(self, slices: Iterable[SliceSums]) -> SoftScore:
        """The scores over all pixels of some slices."""
        total = tf.constant(np.sum(list(slices), axis=0), tf.float32)
        dice = soft_dice(*tf.split(total[: self._dice_sums], 3))
        loss = self._loss.combine_sums(total[self._dice_sums :])
        return SoftScore(float(loss), tuple(dice.numpy().tolist()))
