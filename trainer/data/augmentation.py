"""Random changes of training samples.

Every draw comes from the generator that is handed in, which the caller keys by
(seed, epoch, turn): a sample of an epoch looks the same whatever ran before it. One geometric
field moves image and mask; intensity changes touch the image alone.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from contract.config import Augment

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]


def augment(image: Image, mask: Mask, rng: Generator, settings: Augment) -> tuple[Image, Mask]:
    """A changed copy of a sample.

    image: float32 [S, S, C] in 0..1; mask: uint8 [S, S] of 0 and 1. Both keep shape and range.
    """
    image, mask = flip(image, mask, rng, settings)
    image, mask = warp(image, mask, rng, settings)
    return change_intensity(image, rng, settings), mask


def flip(image: Image, mask: Mask, rng: Generator, settings: Augment) -> tuple[Image, Mask]:
    """Mirror left-right and up-down, each with its own probability."""
    horizontal, vertical = rng.random(2)
    if horizontal < settings.flip_horizontal:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if vertical < settings.flip_vertical:
        image, mask = image[::-1], mask[::-1]
    return image, mask


def warp(image: Image, mask: Mask, rng: Generator, settings: Augment) -> tuple[Image, Mask]:
    """Rotate, scale and shift about the centre; what comes in from outside is 0."""
    chance, angle, scale, *shift = rng.random(5)
    if chance >= settings.geometry:
        return image, mask
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D(
        ((side - 1) / 2, (side - 1) / 2),
        (2 * angle - 1) * settings.rotation,
        settings.scale ** (2 * scale - 1),
    )
    matrix[:, 2] += (2 * np.array(shift) - 1) * settings.shift * side
    warped = cv2.warpAffine(np.ascontiguousarray(image), matrix, (side, side))
    moved = cv2.warpAffine(np.ascontiguousarray(mask) * np.float32(1.0), matrix, (side, side))
    # OpenCV drops the axis of a single channel.
    return warped.reshape(image.shape).astype(np.float32), (moved > 0.5).astype(np.uint8)


def change_intensity(image: Image, rng: Generator, settings: Augment) -> Image:
    """Gamma, gain and noise, clipped to 0..1 again."""
    power, factor = rng.random(2)
    gamma_corrected = np.power(image, np.float32(settings.gamma ** (2 * power - 1)))
    brightened = gamma_corrected * np.float32(1 + (2 * factor - 1) * settings.gain)
    noisy = brightened + np.float32(settings.noise) * rng.standard_normal(image.shape, np.float32)
    return np.clip(noisy, 0.0, 1.0).astype(np.float32)
