"""Weights of the flexible UNet of the Antillia projects, their models/best_model.h5.

Their network is `network.name = "unet"` without normalization, but for two points: the decoder
concatenates the upsampled features before those of the encoder, so that the input channels of the
convolution after them are in another order; and with input_normalize = False it gets intensities of
0..255, not of 0..1.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tf_keras as keras
from numpy.typing import NDArray

from contract.bundle import MANIFEST, BundleMetadata
from contract.config import Config
from contract.errors import BundleError, TrainingError
from contract.host_info import host_info
from contract.imaging.intensity_scaling import IntensityScaling
from contract.storage import Storage
from contract.temp_folders import folder_prefix
from contract.timestamps import utc_now
from trainer.export.keras_h5 import read_h5
from trainer.export.saved_model import build_inference_model, export_bundle
from trainer.export.weights import ModelState

log = logging.getLogger(__name__)

FILE_NAME = "best_model.h5"
_FIRST = "encoder_0_1_conv"
_RAW_MAXIMUM = 255.0


def import_weights(config: Config, file: Path, destination: Storage) -> None:
    """Write a bundle with the weights of a best_model.h5.

    Args:
        config: The settings of the network; train.antillia_weights says which intensities it gets.
        file: The file, of a complete model or of weights alone.
        destination: Where the bundle is written.

    Raises:
        ConfigError: Those projects have no such network.
        TrainingError: The file cannot be read, or has the weights of another network.
        BundleError: There is a bundle at the destination.
    """
    if config.train.antillia_weights == "none":
        config = config.with_values({"train.antillia_weights": "normalized"})
    if destination.exists(MANIFEST):
        raise BundleError(
            f"{destination.url} has a bundle already: choose another folder, or delete it."
        )
    classes = config.data.segmentation_classes
    model = build_inference_model(config.network, len(classes), config.input_channels)
    try:
        _set_weights(model, config, read_h5(file))
    except ValueError as error:
        raise TrainingError(
            f"{file} {error}: use the best_model.h5 that was trained with these settings."
        ) from error
    log.warning(
        "%s does not say which patients it was trained on: segfleet evaluate cannot detect data "
        "leakage, so evaluate the bundle on patients that you know to be new to it",
        file,
    )
    metadata = BundleMetadata(
        name=config.run.name,
        created=utc_now(),
        commit=None,
        machine=host_info()["machine"],
        fingerprint=config.fingerprint(),
        dataset="unknown",
        patients={},
        image_size=config.network.image_shape,
        image_channels=config.network.image_channels,
        neighbours=config.data.neighbours,
        classes=classes,
        intensity_scaling=IntensityScaling.from_window(
            config.data.intensity_low, config.data.intensity_high
        ),
        class_tolerance=config.data.class_tolerance,
        other_values_are_background=config.data.other_values_are_background,
        threshold=config.predict.threshold,
        metrics={},
    )
    export_bundle(model, config, metadata, destination)


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
    is_raw = config.train.antillia_weights == "raw"
    model.set_weights(_convert(model, state, _RAW_MAXIMUM if is_raw else 1.0))


def save_weights(config: Config, weights: ModelState, run: Storage) -> None:
    """Write best_model.h5 into a run.

    weights: those of the inference model.
    """
    classes = config.data.segmentation_classes
    model = build_inference_model(config.network, len(classes), config.input_channels)
    is_raw = config.train.antillia_weights == "raw"
    model.set_weights(_convert(model, weights, 1.0 / _RAW_MAXIMUM if is_raw else 1.0))
    with tempfile.TemporaryDirectory(prefix=folder_prefix("weights")) as folder:
        file = Path(folder) / FILE_NAME
        model.save_weights(file, save_format="h5")
        run.write(FILE_NAME, file.read_bytes())


def _convert(model: keras.Model, state: ModelState, scale: float) -> ModelState:
    """The weights of one of the two networks for the other one; the same in both directions.

    scale: the factor of the kernel that the slice meets.
    """
    layers = [layer.name for layer in model.layers for _ in layer.weights]
    return [
        _convert_kernel(layer, value, scale) if value.ndim == 4 else value
        for layer, value in zip(layers, state, strict=True)
    ]


def _convert_kernel(layer: str, kernel: NDArray, scale: float) -> NDArray:
    if layer == _FIRST:
        return kernel * np.float32(scale)
    if layer.startswith("decoder_") and layer.endswith("_1_conv"):
        skipped, upsampled = np.split(kernel, 2, axis=2)
        return np.concatenate([upsampled, skipped], axis=2)
    return kernel
