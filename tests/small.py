"""Settings whose training takes seconds, for every test that trains, and small caches."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.imaging.intensity_scaling import IntensityScaling
from trainer.data.cache import CachedSplit, ImageShape, write_slice

FEW_SLICES = {
    "train_patients": 2,
    "valid_patients": 1,
    "test_patients": 1,
    "slices": 4,
    "size": 64,
}
"""[data.phantom]: 16 slices of 4 patients."""
NETWORK = {"image_size": 32, "num_layers": 2, "base_filters": 4, "dropout_rate": 0.0}
"""[network]: two levels, and nothing left to chance."""
WINDOW = IntensityScaling.from_window(0.0, 255.0)
"""That of the settings' defaults."""


def write_split(folder: Path, images: NDArray[np.integer], masks: NDArray[np.uint8]) -> CachedSplit:
    """A cache of images [n, H, W, C] and masks [n, H, W]."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        write_slice(folder, index, image, mask)
    return CachedSplit(
        folder, len(images), ImageShape(*images.shape[1:]), 1, tuple(range(len(images)))
    )


def balance(bias: tf.Variable, probability: tf.Tensor) -> None:
    """Change the bias of a network's output so that half of these probabilities are above 0.5.

    The initial bias predicts hardly any foreground.
    """
    values = np.clip(np.asarray(probability, np.float64), 1e-6, 1 - 1e-6)
    bias.assign(bias - np.float32(np.median(np.log(values / (1.0 - values)))))
