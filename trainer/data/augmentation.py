"""Random augmentation of training samples.

All random numbers come from the generator that is passed in, which the caller seeds by
(seed, epoch, sample index): a sample of an epoch is the same whatever ran before it. One geometric
transformation moves image and mask; intensity changes apply to the image only.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from contract.config import Augment

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]


def augment(image: Image, mask: Mask, rng: Generator, settings: Augment) -> tuple[Image, Mask]:
    """An augmented copy of a sample.

    Args:
        image: float32 [S, S, C] in 0..1.
        mask: uint8 [S, S] of 0 and 1.
        rng: The source of all random numbers.
        settings: Probabilities and ranges.

    Returns:
        Image and mask with the same shapes and ranges.
    """
    image, mask = flip(image, mask, rng, settings)
    image, mask = warp(image, mask, rng, settings)
    return change_intensity(image, rng, settings), mask


def flip(image: Image, mask: Mask, rng: Generator, settings: Augment) -> tuple[Image, Mask]:
    """Flip left-right and up-down, each with its own probability."""
    horizontal, vertical = rng.random(2)
    if horizontal < settings.flip_horizontal:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if vertical < settings.flip_vertical:
        image, mask = image[::-1], mask[::-1]
    return image, mask


def warp(image: Image, mask: Mask, rng: Generator, settings: Augment) -> tuple[Image, Mask]:
    """Rotate, scale and shift about the center; pixels from outside the image are 0."""
    probability, angle, scale, *shift = rng.random(5)
    if probability >= settings.geometry:
        return image, mask
    size = image.shape[0]
    matrix = cv2.getRotationMatrix2D(
        ((size - 1) / 2, (size - 1) / 2),
        (2 * angle - 1) * settings.rotation,
        settings.scale ** (2 * scale - 1),
    )
    matrix[:, 2] += (2 * np.array(shift) - 1) * settings.shift * size
    warped = cv2.warpAffine(np.ascontiguousarray(image), matrix, (size, size))
    coverage = cv2.warpAffine(np.ascontiguousarray(mask) * np.float32(1.0), matrix, (size, size))
    # OpenCV drops the axis of a single channel.
    return warped.reshape(image.shape).astype(np.float32), (coverage > 0.5).astype(np.uint8)


def change_intensity(image: Image, rng: Generator, settings: Augment) -> Image:
    """Apply gamma, gain and noise, and clip to 0..1."""
    exponent, gain = rng.random(2)
    gamma_corrected = np.power(image, np.float32(settings.gamma ** (2 * exponent - 1)))
    brightened = gamma_corrected * np.float32(1 + (2 * gain - 1) * settings.gain)
    noise = np.float32(settings.noise) * rng.standard_normal(image.shape, np.float32)
    return np.clip(brightened + noise, 0.0, 1.0).astype(np.float32)
