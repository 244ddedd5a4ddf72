"""Distances between the surfaces of two masks, and the metrics that follow from them.

The surface of a mask is its pixels with a neighbour in the background, across an edge of the pixel
(a face of the voxel) and not across a corner; the border of the image counts as background. Every
pixel of a surface has the same weight. With d(x, S) the distance from the center of x to the
nearest center of a surface pixel in S, of the surfaces T of the ground truth and P of the
prediction:

    HD95 = max(percentile 95 of d(p, T), percentile 95 of d(t, P))
    surface Dice = (pixels of P with d(p, T) <= tolerance + pixels of T with d(t, P) <= tolerance)
                   / (pixels of P + pixels of T)

Both are as in MONAI (HausdorffDistanceMetric with percentile=95, SurfaceDiceMetric). Surface Dice,
also called NSD, is from Nikolov et al. 2018, arXiv:1809.04430, who weight surface elements by their
area. HD95 is discussed by Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

_PERCENTILE = 95.0
# Distances are rounded to a nanometer, or a millionth of a pixel.
_DIGITS = 6

Distances = NDArray[np.float64]


@dataclass(frozen=True)
class SurfaceDistances:
    """The distances between the surfaces of two masks; infinite if the other surface is empty."""

    to_truth: Distances
    """From each pixel of the surface of the prediction to that of the ground truth."""
    to_prediction: Distances
    """From each pixel of the surface of the ground truth to that of the prediction."""

    @property
    def unmatched(self) -> bool:
        """Whether exactly one of the masks is empty."""
        return (len(self.to_truth) == 0) != (len(self.to_prediction) == 0)


@dataclass(frozen=True)
class SurfaceScore:
    """The surface metrics of one class of a patient.

    If both masks are empty, the surface Dice is 1 and HD95 is 0, as the Dice is 1. If one is empty,
    the surface Dice is 0 and HD95 is undefined: no distance exists.
    """

    surface_dice: float
    """0 to 1."""
    hd95: float | None
    """In mm or pixels, 0 or more; None if it is undefined."""
    truth_empty: bool
    prediction_empty: bool
    unmatched: int
    """Parts (slices if distances are within slices, else volumes) in which exactly one of the masks
    has the class. Their pixels are outside of the tolerance, and have no distance for HD95."""


def measure_distances(
    prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_], axes: NDArray[np.float64]
) -> SurfaceDistances:
    """The distances between the surfaces of two masks.

    Args:
        prediction: Of N dimensions.
        ground_truth: Of the same shape.
        axes: [N, N]; column k is the step from a pixel to the next one along dimension k, so that
            the dimensions may have different spacings, and need not be perpendicular.

    Returns:
        The distances, in the unit of axes.
    """
    predicted, true = (_surface_points(mask) @ axes.T for mask in (prediction, ground_truth))
    return SurfaceDistances(
        _nearest_distances(predicted, true), _nearest_distances(true, predicted)
    )


def score_surfaces(parts: Sequence[SurfaceDistances], tolerance: float) -> SurfaceScore:
    """The metrics of a class of a patient; parts: the distances in each slice or volume."""
    directions = [
        np.concatenate([np.empty(0), *distances])
        for distances in (
            [part.to_truth for part in parts],
            [part.to_prediction for part in parts],
        )
    ]
    to_truth, to_prediction = directions
    total = len(to_truth) + len(to_prediction)
    within = sum(int(np.count_nonzero(each <= tolerance)) for each in directions)
    finite = [each[np.isfinite(each)] for each in directions]
    hd95 = None
    if not total:
        hd95 = 0.0
    elif all(map(len, finite)):
        hd95 = max(float(np.percentile(each, _PERCENTILE)) for each in finite)
    return SurfaceScore(
        surface_dice=within / total if total else 1.0,
        hd95=hd95,
        truth_empty=not len(to_prediction),
        prediction_empty=not len(to_truth),
        unmatched=sum(part.unmatched for part in parts),
    )


def _surface_points(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The indices [pixels, N] of the surface of a mask."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def _nearest_distances(points: NDArray[np.float64], others: NDArray[np.float64]) -> Distances:
    """The distance from each of the points [n, N] to the nearest of the others."""
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    # SciPy's distance transform of the volume would need at least 20 bytes per voxel, 2.6 GB at
    # 512 x 512 x 500; this needs memory for the surfaces alone.
    distances, _ = KDTree(others).query(points)
    # A distance that equals the tolerance is within it, whatever the rounding of the coordinates.
    return np.round(np.asarray(distances, np.float64), _DIGITS)
