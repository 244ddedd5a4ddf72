"""Whether probabilities are frequencies: the reliability of each class, over pixels.

The pixels are counted in ten bins by the probability of the class. In a bin of a calibrated
network, the fraction of the pixels that have the class is the mean of their probabilities. The
expected calibration error is the mean over all pixels of the absolute difference of the two in
their bin (ECE; Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602; Guo et al. 2017,
arXiv:1706.04599), the maximum calibration error (MCE) its maximum over the bins with pixels.

Most pixels of a slice are background with a probability close to 0, so that the ECE is small even
if the probabilities near contours are wrong: the diagram shows more than the number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """The reliability of a class, in ten bins of equal width from probability 0 to 1."""

    pixels: tuple[int, ...]
    """Of each bin."""
    mean_probability: tuple[float | None, ...]
    """Of the pixels in each bin; None without pixels."""
    fraction: tuple[float | None, ...]
    """The fraction of the pixels in each bin that have the class; None without pixels."""
    expected_error: float
    """ECE, 0 to 1."""
    maximum_error: float
    """MCE, 0 to 1."""


class ReliabilityCounts:
    """Counts the pixels of slices in bins; its size does not depend on their number."""

    def __init__(self, num_classes: int) -> None:
        self._pixels = np.zeros((num_classes, BINS), np.int64)
        self._positives = np.zeros((num_classes, BINS), np.int64)
        self._probabilities = np.zeros((num_classes, BINS))

    def add_slice(self, mask: NDArray[np.uint8], probability: NDArray[np.float32]) -> None:
        """Count a slice; mask: class indices [H, W]; probability: [H, W, K] in 0..1."""
        for index in range(probability.shape[-1]):
            values = probability[..., index].ravel()
            bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
            has_class = mask.ravel() == index + 1
            self._pixels[index] += np.bincount(bins, minlength=BINS)
            self._positives[index] += np.bincount(bins[has_class], minlength=BINS)
            self._probabilities[index] += np.bincount(bins, weights=values, minlength=BINS)

    def reliability(self, index: int) -> Reliability:
        """The reliability of a class, from 0; at least one slice was counted."""
        pixels = self._pixels[index]
        filled, divisor = pixels > 0, np.maximum(pixels, 1)
        mean, fraction = self._probabilities[index] / divisor, self._positives[index] / divisor
        errors = np.abs(mean - fraction)
        return Reliability(
            tuple(pixels.tolist()),
            *(
                tuple(
                    value if present else None
                    for value, present in zip(values, filled.tolist(), strict=True)
                )
                for values in (mean.tolist(), fraction.tolist())
            ),
            expected_error=float((errors * pixels).sum() / pixels.sum()),
            maximum_error=float(errors[filled].max()),
        )
