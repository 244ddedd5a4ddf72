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


def augment(image: Image, mask: Mask, draw: Generator, settings: Augment) -> tuple[Image, Mask]:
    """A changed copy of a sample.

    image: float32 [S, S, C] in 0..1; mask: uint8 [S, S] of 0 and 1. Both keep shape and range.
    """
    image, mask = flip(image, mask, draw, settings)
    image, mask = warp(image, mask, draw, settings)
    return change_intensity(image, draw, settings), mask


def flip(image: Image, mask: Mask, draw: Generator, settings: Augment) -> tuple[Image, Mask]:
    """Mirror left-right and up-down, each with its own probability."""
    horizontal, vertical = draw.random(2)
    if horizontal < settings.flip_horizontal:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if vertical < settings.flip_vertical:
        image, mask = image[::-1], mask[::-1]
    return image, mask


def warp(image: Image, mask: Mask, draw: Generator, settings: Augment) -> tuple[Image, Mask]:
    """Rotate, scale and shift about the centre; what comes in from outside is 0."""
    chance, turn, zoom, *move = draw.random(5)
    if chance >= settings.geometry:
        return image, mask
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D(
        ((side - 1) / 2, (side - 1) / 2),
        (2 * turn - 1) * settings.rotation,
        settings.scale ** (2 * zoom - 1),
    )
    matrix[:, 2] += (2 * np.array(move) - 1) * settings.shift * side
    warped = cv2.warpAffine(np.ascontiguousarray(image), matrix, (side, side))
    moved = cv2.warpAffine(np.ascontiguousarray(mask) * np.float32(1.0), matrix, (side, side))
    # OpenCV drops the axis of a single channel.
    return warped.reshape(image.shape).astype(np.float32), (moved > 0.5).astype(np.uint8)


def change_intensity(image: Image, draw: Generator, settings: Augment) -> Image:
    """Gamma, gain and noise, clipped to 0..1 again."""
    power, factor = draw.random(2)
    bent = np.power(image, np.float32(settings.gamma ** (2 * power - 1)))
    lit = bent * np.float32(1 + (2 * factor - 1) * settings.gain)
    noisy = lit + np.float32(settings.noise) * draw.standard_normal(image.shape, np.float32)
    return np.clip(noisy, 0.0, 1.0).astype(np.float32)
