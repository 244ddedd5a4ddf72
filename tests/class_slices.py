"""Slices with three classes in color: an organ, a lesion that touches it, and a bone."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = {"organ": (230, 60, 60), "lesion": (60, 200, 80), "bone": (70, 90, 240)}
"""data.classes of the masks."""

_BRIGHTNESS = (30, 110, 170, 240)


def write_class_slices(folder: Path, patients: int = 6, slices: int = 4, size: int = 64) -> None:
    """Write an unsplit dataset, images and masks of P0-0, P0-1, …; a class has a brightness."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for patient in range(patients):
        for number in range(slices):
            mask = draw_mask(rng, size)
            image = np.array(_BRIGHTNESS)[mask] + rng.normal(0, 6, mask.shape)
            name = f"P{patient}-{number}.png"
            cv2.imwrite(str(folder / "images" / name), image.clip(0, 255).astype(np.uint8))
            colors = np.array([(0, 0, 0), *CLASSES.values()], np.uint8)[mask]
            cv2.imwrite(str(folder / "masks" / name), colors[..., ::-1])


def draw_mask(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Class indices [size, size]."""
    mask = np.zeros((size, size), np.uint8)
    unit = size / 64
    x, y = (round(value * unit) for value in rng.integers(20, 34, 2))
    cv2.ellipse(mask, (x, y), (round(14 * unit), round(10 * unit)), 30, 0, 360, 1, -1)
    cv2.circle(mask, (x + round(8 * unit), y), round(5 * unit), 2, -1)
    cv2.circle(mask, (round(50 * unit), round(50 * unit)), round(6 * unit), 3, -1)
    return mask
