"""Weights of the flexible UNet of the Antillia projects, their models/best_model.h5.

Their network is `network.name = "unet"` without normalization, but for three points: the decoder
concatenates the upsampled features before those of the encoder, so that the input channels of the
convolution after them are in another order; its intensities of 0..255 are divided by 255 never,
once or twice; and its color slices are BGR, unless they are converted.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tf_keras as keras
from numpy.typing import NDArray

from contract.config import Config
from contract.errors import ConfigError, TrainingError
from contract.storage import Storage
from contract.temp_folders import folder_prefix
from trainer.export.keras_h5 import read_h5
from trainer.export.saved_model import build_inference_model
from trainer.export.weights import ModelState

FILE_NAME = "best_model.h5"
_FIRST = "encoder_0_1_conv"
# The factor of their intensities with respect to ours, which are in 0..1.
_FACTORS = {"raw": 255.0, "normalized": 1.0, "normalized_twice": 1.0 / 255.0}


def load_weights(config: Config, file: Path) -> keras.Model:
    """The inference model with the weights of a best_model.h5.

    Args:
        config: The settings of the network, with train.antillia_weights and antillia_channels.
        file: The file, of a complete model or of weights alone.

    Raises:
        ConfigError: The settings do not say which intensities the network gets.
        TrainingError: The file cannot be read, or has the weights of another network.
    """
    if config.train.antillia_weights == "none":
        raise ConfigError(
            'train.antillia_weights = "none": set it to "raw", "normalized" or "normalized_twice", '
            "which says how often the network of the file divides intensities by 255; a .config "
            "file says it, if the network has the same input as ours."
        )
    classes = config.data.segmentation_classes
    model = build_inference_model(config.network, len(classes), config.input_channels)
    try:
        _set_weights(model, config, read_h5(file))
    except ValueError as error:
        raise TrainingError(
            f"{file} {error}: use the best_model.h5 that was trained with these settings."
        ) from error
    return model


def _set_weights(
    model: keras.Model, config: Config, stored: Mapping[str, Sequence[NDArray[np.floating]]]
) -> None:
    """Set the weights of a file; ValueError, with a clause, if they are of another network."""
    layers = [layer for layer in model.layers if layer.weights]
    if len(stored) != len(layers):
        raise ValueError(
            f"has weights for {len(stored)} layers, while the network has {len(layers)}"
        )
    for layer, (name, values) in zip(layers, stored.items(), strict=True):
        expected = [tuple(variable.shape) for variable in layer.weights]
        if (shapes := [value.shape for value in values]) != expected:
            raise ValueError(
                f"has the shapes {shapes} in its layer {name}, while {layer.name} of the network "
                f"has {expected}"
            )
    state = [value for values in stored.values() for value in values]
    model.set_weights(_convert(model, state, config, _FACTORS[config.train.antillia_weights]))


def save_weights(config: Config, weights: ModelState, run: Storage) -> None:
    """Write best_model.h5 into a run.

    weights: those of the inference model.
    """
    classes = config.data.segmentation_classes
    model = build_inference_model(config.network, len(classes), config.input_channels)
    factor = _FACTORS[config.train.antillia_weights]
    model.set_weights(_convert(model, weights, config, 1.0 / factor))
    with tempfile.TemporaryDirectory(prefix=folder_prefix("weights")) as folder:
        file = Path(folder) / FILE_NAME
        model.save_weights(file, save_format="h5")
        run.write(FILE_NAME, file.read_bytes())


def _convert(model: keras.Model, state: ModelState, config: Config, scale: float) -> ModelState:
    """The weights of one of the two networks for the other one; the same in both directions.

    scale: the factor of the kernel that the slice meets.
    """
    layers = [layer.name for layer in model.layers for _ in layer.weights]
    return [
        _convert_kernel(layer, value, config, scale) if value.ndim == 4 else value
        for layer, value in zip(layers, state, strict=True)
    ]


def _convert_kernel(layer: str, kernel: NDArray, config: Config, scale: float) -> NDArray:
    if layer == _FIRST:
        is_bgr = config.train.antillia_channels == "bgr" and config.data.color_space == "rgb"
        ordered = kernel[:, :, ::-1] if is_bgr and kernel.shape[2] == 3 else kernel
        return ordered * np.float32(scale)
    if layer.startswith("decoder_") and layer.endswith("_1_conv"):
        skipped, upsampled = np.split(kernel, 2, axis=2)
        return np.concatenate([upsampled, skipped], axis=2)
    return kernel
