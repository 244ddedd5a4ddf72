"""The terms that the losses are means of.

A term is computed from sums over the pixels or the samples of a batch. The sums of all workers are
added up before they are combined, so one worker with a batch of 8 and two workers with 4 each
compute the same loss and the same gradient.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

# Keeps log() finite; float32 cannot hold 1 - 1e-8.
EPSILON = 1e-7
_SMOOTH = 1.0
# The side of the window whose edge is the inner boundary of a mask, in pixels.
_BOUNDARY_WINDOW = 3

RegionFormula = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""From Σyp, Σy and Σp, of the same shape, to a value of 0 (best) to 1."""


@dataclass(frozen=True)
class BatchMaps:
    """A batch of this worker, in float32.

    Attributes:
        mask: y, 0 or 1, [B, H, W, K].
        probability: p, [B, H, W, K].
        weight: The weight of each sample, [B]; 0 excludes it.
    """

    mask: tf.Tensor
    probability: tf.Tensor
    weight: tf.Tensor

    def weighted_sum(self, plane: tf.Tensor) -> tf.Tensor:
        """The sum over all pixels of a plane [B, H, W], samples weighted: a scalar."""
        return tf.reduce_sum(self.weight[:, None, None] * plane)

    def planes(self) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Mask and probability of each class, [B, H, W] each."""
        masks, probabilities = tf.unstack(self.mask, axis=-1), tf.unstack(self.probability, axis=-1)
        return list(zip(masks, probabilities, strict=True))

    def all_planes(self) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Mask and probability of the background and of each class, [B, H, W] each."""
        planes = self.planes()
        background = (
            1.0 - tf.add_n([y for y, _ in planes]),
            1.0 - tf.add_n([p for _, p in planes]),
        )
        return [background, *planes]


class LossTerm(ABC):
    """A term of a loss, in two steps: sums of a batch, and their combination."""

    size: int
    """The number of sums."""
    min_side = 1
    """Pixels that a slice must have along each axis."""

    @abstractmethod
    def batch_sums(self, maps: BatchMaps) -> tf.Tensor:
        """This worker's part of the sums, [size]."""

    @abstractmethod
    def combine(self, total: tf.Tensor) -> tf.Tensor:
        """The term, a scalar, from the sums [size] over all workers."""


class CrossEntropy(LossTerm):
    """Σ_k Σ -w_k y_k (1 - p_k)^gamma log p_k / Σ_k Σ w_k y_k, k from 0, the background.

    gamma > 0 makes it the focal loss (Lin 2017, arXiv:1708.02002). With label smoothing s
    (Szegedy 2016, arXiv:1512.00567), y_k is (1 - s) y_k + s / (K + 1).
    """

    size = 2

    def __init__(
        self, class_weights: Sequence[float], smoothing: float = 0.0, gamma: float = 0.0
    ) -> None:
        self.class_weights, self.smoothing, self.gamma = tuple(class_weights), smoothing, gamma

    def batch_sums(self, maps: BatchMaps) -> tf.Tensor:
        """[2] the weights of the pixels, and their entropy."""
        pixels, entropies = [], []
        for class_weight, (mask, p) in zip(self.class_weights, maps.all_planes(), strict=True):
            y = mask
            if self.smoothing:
                y = (1.0 - self.smoothing) * mask + self.smoothing / len(self.class_weights)
            entropy = y * tf.math.log(tf.maximum(p, EPSILON))
            if self.gamma:
                # The gradient of 0 ** gamma is infinite if gamma < 1.
                entropy *= tf.maximum(1.0 - p, EPSILON) ** self.gamma
            pixels.append(class_weight * maps.weighted_sum(y))
            entropies.append(-class_weight * maps.weighted_sum(entropy))
        return tf.stack([tf.add_n(pixels), tf.add_n(entropies)])

    def combine(self, total: tf.Tensor) -> tf.Tensor:
        """The mean entropy of a pixel."""
        return total[1] / total[0]


class Region(LossTerm):
    """A formula of Σyp, Σy and Σp, mean over the classes, weighted.

    The sums are over all pixels of the batch, or, by sample, over those of each slice, and the
    formula's values are averaged over the samples.
    """

    def __init__(
        self, class_weights: Sequence[float], formula: RegionFormula, by_sample: bool = False
    ) -> None:
        """class_weights: of the background, which does not count, and of each class."""
        self.class_weights, self.formula, self.by_sample = class_weights[1:], formula, by_sample
        classes = len(self.class_weights)
        self.size = classes + 1 if by_sample else 3 * classes

    def batch_sums(self, maps: BatchMaps) -> tf.Tensor:
        """[3 K] Σyp, Σy and Σp of each class; by sample [K + 1] their values, and the samples."""
        planes = maps.planes()
        if not self.by_sample:
            return region_sums(maps)
        values = [
            self.formula(*(tf.reduce_sum(each, axis=[1, 2]) for each in (y * p, y, p)))
            for y, p in planes
        ]
        sums = [tf.reduce_sum(maps.weight * value) for value in values]
        return tf.stack([*sums, tf.reduce_sum(maps.weight)])

    def combine(self, total: tf.Tensor) -> tf.Tensor:
        """The mean over the classes."""
        if self.by_sample:
            return mean_over_classes(total[:-1] / total[-1], self.class_weights)
        return mean_over_classes(self.formula(*tf.split(total, 3)), self.class_weights)


class StructuralSimilarity(LossTerm):
    """1 - mean over samples and classes of SSIM(y, p), 11 x 11 gaussian window (Wang 2004)."""

    size = 2
    min_side = 11

    def batch_sums(self, maps: BatchMaps) -> tf.Tensor:
        """[2] similarity and samples."""
        similarity = tf.image.ssim(maps.mask, maps.probability, max_val=1.0)
        return tf.stack([tf.reduce_sum(similarity * maps.weight), tf.reduce_sum(maps.weight)])

    def combine(self, total: tf.Tensor) -> tf.Tensor:
        """1 minus the mean similarity."""
        return 1.0 - total[0] / total[1]


class Lovasz(LossTerm):
    """The Lovász extension of 1 - IoU of each slice (Berman 2018, arXiv:1705.08790).

    Mean over samples and classes, weighted; of the errors |y - p|, by sample, because errors of
    several workers cannot be sorted together from sums. A class that is not in a slice counts with
    its largest error there.
    """

    size = 2

    def __init__(self, class_weights: Sequence[float]) -> None:
        """class_weights: of the background, which does not count, and of each class."""
        self.class_weights = class_weights[1:]

    def batch_sums(self, maps: BatchMaps) -> tf.Tensor:
        """[2] the loss, and the number of samples."""
        by_class = tf.stack([_lovasz(y, p) for y, p in maps.planes()], axis=-1)
        values = mean_over_classes(by_class, self.class_weights)
        return tf.stack([tf.reduce_sum(maps.weight * values), tf.reduce_sum(maps.weight)])

    def combine(self, total: tf.Tensor) -> tf.Tensor:
        """The mean over the samples."""
        return total[0] / total[1]


def _lovasz(mask: tf.Tensor, probability: tf.Tensor) -> tf.Tensor:
    """The loss of each sample [B], from planes [B, H, W]."""
    batch = tf.shape(mask)[0]
    y = tf.reshape(mask, [batch, -1])
    errors = tf.reshape(tf.abs(mask - probability), [batch, -1])
    order = tf.argsort(errors, axis=-1, direction="DESCENDING")
    y, errors = tf.gather(y, order, batch_dims=1), tf.gather(errors, order, batch_dims=1)
    total = tf.reduce_sum(y, axis=-1, keepdims=True)
    union = total + tf.cumsum(1.0 - y, axis=-1)
    jaccard = 1.0 - (total - tf.cumsum(y, axis=-1)) / union
    gradient = jaccard - tf.pad(jaccard[:, :-1], [[0, 0], [1, 0]])
    return tf.reduce_sum(errors * tf.stop_gradient(gradient), axis=-1)


class Boundary(LossTerm):
    """1 - F1 of the boundaries, mean over the classes, weighted (Bokhovkin 2019, arXiv:1905.07852).

    The boundary of a map is b = maxpool_3(1 - map) - (1 - map), its inner edge, and it is found if
    it is within the width of the other boundary:

        precision = (Σ b(p) maxpool(b(y)) + 1) / (Σ b(p) + 1)
        recall    = (Σ b(y) maxpool(b(p)) + 1) / (Σ b(y) + 1)
    """

    def __init__(self, class_weights: Sequence[float], width: int) -> None:
        """Args:
        class_weights: Of the background, which does not count, and of each class.
        width: The side of the window of maxpool in pixels, odd.
        """
        self.class_weights, self.width = class_weights[1:], width
        self.size = 4 * len(self.class_weights)

    def batch_sums(self, maps: BatchMaps) -> tf.Tensor:
        """[4 K] Σ b(p) maxpool(b(y)), Σ b(p), Σ b(y) maxpool(b(p)) and Σ b(y) of each class."""
        true, predicted = _inner_boundary(maps.mask), _inner_boundary(maps.probability)
        planes = (
            predicted * _max_pool(true, self.width),
            predicted,
            true * _max_pool(predicted, self.width),
            true,
        )
        weight = maps.weight[:, None, None, None]
        return tf.concat([tf.reduce_sum(weight * each, axis=[0, 1, 2]) for each in planes], 0)

    def combine(self, total: tf.Tensor) -> tf.Tensor:
        """The mean over the classes."""
        near_true, predicted, near_predicted, true = tf.split(total, 4)
        precision = (near_true + _SMOOTH) / (predicted + _SMOOTH)
        recall = (near_predicted + _SMOOTH) / (true + _SMOOTH)
        f1 = 2.0 * precision * recall / (precision + recall)
        return mean_over_classes(1.0 - f1, self.class_weights)


def _inner_boundary(maps: tf.Tensor) -> tf.Tensor:
    return _max_pool(1.0 - maps, _BOUNDARY_WINDOW) - (1.0 - maps)


def _max_pool(maps: tf.Tensor, side: int) -> tf.Tensor:
    return tf.nn.max_pool2d(maps, side, 1, "SAME")


def region_sums(maps: BatchMaps) -> tf.Tensor:
    """[3 K] Σyp of each class, then Σy, then Σp."""
    planes = maps.planes()
    by_kind = [[y * p for y, p in planes], [y for y, _ in planes], [p for _, p in planes]]
    return tf.stack([maps.weighted_sum(plane) for kind in by_kind for plane in kind])


def mean_over_classes(values: tf.Tensor, class_weights: Sequence[float]) -> tf.Tensor:
    """The weighted mean of values [..., K] along the last axis."""
    weights = tf.constant(class_weights, tf.float32)
    return tf.reduce_sum(weights * values, axis=-1) / tf.reduce_sum(weights)


def soft_dice(overlap: tf.Tensor, true: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """(2 Σyp + 1) / (Σy + Σp + 1)."""
    return (2.0 * overlap + _SMOOTH) / (true + predicted + _SMOOTH)


def dice_formula(overlap: tf.Tensor, true: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """1 - soft Dice (Milletari 2016, arXiv:1606.04797, without squares)."""
    return 1.0 - soft_dice(overlap, true, predicted)


def iou_formula(overlap: tf.Tensor, true: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """1 - (Σyp + 1) / (Σy + Σp - Σyp + 1)."""
    return 1.0 - (overlap + _SMOOTH) / (true + predicted - overlap + _SMOOTH)


def tversky_formula(alpha: float, beta: float) -> RegionFormula:
    """1 - (Σyp + 1) / (Σyp + alpha Σ(1-y)p + beta Σy(1-p) + 1) (Salehi 2017, arXiv:1706.05721)."""

    def formula(overlap: tf.Tensor, true: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
        errors = alpha * (predicted - overlap) + beta * (true - overlap)
        return 1.0 - (overlap + _SMOOTH) / (overlap + errors + _SMOOTH)

    return formula
