"""From trained weights to a bundle: a graph that maps raw slices to masks.

Everything that turns a slice into probabilities and a mask is inside the graph: grey or RGB
conversion, test-time augmentation, resizing or sliding window, intensity normalization, the
network, and the threshold. Loading it needs none of our code.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import tensorflow as tf
import tf_keras as keras

from contract import bundle
from contract.config import Config, Network
from contract.config.loader import to_toml
from contract.imaging.intensity_scaling import IntensityScaling
from contract.storage import Storage
from contract.temp_folders import folder_prefix
from trainer.components.class_maps import predicted_mask
from trainer.data.preprocessing import match_channels, normalize, repeat_single_slice
from trainer.data.slice_adjustments import adjust_slices
from trainer.export.augmented_views import (
    SLICE,
    View,
    augmented_views,
    mean_of_views,
    sample_views,
)
from trainer.export.sliding_window import blend_windows
from trainer.export.weights import ModelState, to_npz
from trainer.networks.registry import build_network

TensorFunction = Callable[[tf.Tensor], tf.Tensor]


def build_inference_model(
    network: Network, num_classes: int, input_channels: int, state: ModelState | None = None
) -> keras.Model:
    """The network in float32, outside any strategy, with the weights at the start of a state."""
    keras.mixed_precision.set_global_policy("float32")
    model = build_network(network, num_classes, input_channels).inference_model
    if state is not None:
        model.set_weights(state[: len(model.weights)])
    return model


def export_bundle(
    model: keras.Model, config: Config, metadata: bundle.BundleMetadata, destination: Storage
) -> None:
    """Write a bundle: SavedModel, weights and settings, its manifest last."""
    with tempfile.TemporaryDirectory(prefix=folder_prefix("bundle")) as name:
        folder = Path(name)
        module = SegmentationModule(model, config, metadata.intensity_scaling)
        save_graph(module, folder / "saved_model")
        (folder / "weights.npz").write_bytes(to_npz(model.get_weights()))
        (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
        bundle.write_bundle(folder, destination, metadata)


class Segmenter(Protocol):
    """A tf.Module that segments raw slices."""

    def segment(self, slices: tf.Tensor) -> dict[str, tf.Tensor]:
        """probability: float32 [B, H, W, K] in 0..1; mask: uint8 [B, H, W] of class indices."""
        ...


def save_graph(module: Segmenter, folder: Path) -> None:
    """Write a SavedModel with the signatures serving_default (uint8 slices) and int32."""
    # No Python control flow in it depends on a tensor, and AutoGraph takes half a second.
    segment = tf.function(module.segment, autograph=False)
    signatures = {
        name: segment.get_concrete_function(
            tf.TensorSpec((None, None, None, None), dtype, name="slices")
        )
        for name, dtype in (("serving_default", tf.uint8), ("int32", tf.int32))
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)


class SegmentationModule(tf.Module):
    """The exported graph: raw slices [B, H, W, C] to probabilities [B, H, W, K] and masks.

    With data.neighbours, a slice has the channels of its neighbours too, or one, which is repeated.
    """

    def __init__(self, model: keras.Model, config: Config, scaling: IntensityScaling) -> None:
        super().__init__(name="segmentation")
        self.network, self.data, self.predict = config.network, config.data, config.predict
        self.scaling = scaling
        self.views = augmented_views(config.predict, config.data)
        # The weights are attributes, and the model is hidden from TensorFlow: saved as a Keras
        # model it would add a graph for each of its layers that nothing calls.
        self.weights = model.weights
        self.forward: TensorFunction = lambda slices: model(slices, training=False)

    def segment(self, slices: tf.Tensor) -> dict[str, tf.Tensor]:
        """probability: float32 [B, H, W, K] in 0..1; mask: uint8 [B, H, W] of class indices."""
        if not self.predict.sliding_window:
            maps = self._predict_resized(slices)
        elif self.predict.intersect_resized:
            maps = tf.minimum(self._predict_windows(slices), self._predict_resized(slices))
        else:
            maps = self._predict_windows(slices)
        probability = tf.clip_by_value(maps, 0.0, 1.0)
        classes = [each.name for each in self.data.segmentation_classes]
        mask = predicted_mask(probability, self.predict.thresholds(classes))
        return {"probability": probability, "mask": mask}

    def _predict_resized(self, slices: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(slices)
        return self._resize_and_predict(
            self._prepare_slices(slices), shape[1], shape[2], self.views
        )

    def _resize_and_predict(
        self,
        slices: tf.Tensor,
        height: int | tf.Tensor,
        width: int | tf.Tensor,
        views: Sequence[View],
    ) -> tf.Tensor:
        """Probabilities in the size of the slices, whose views the network gets in its own size."""
        resized = sample_views(slices, views, *self.network.image_shape, self.scaling.low)
        return mean_of_views(self._predict_probability(resized), views, height, width)

    def _predict_windows(self, slices: tf.Tensor) -> tf.Tensor:
        prepared = self._prepare_slices(slices)
        if self.views == (SLICE,):
            return self._blend_windows(prepared)
        height, width = tf.shape(slices)[1], tf.shape(slices)[2]
        views = sample_views(prepared, self.views, height, width, self.scaling.low)
        return mean_of_views(self._blend_windows(views), self.views, height, width)

    def _blend_windows(self, slices: tf.Tensor) -> tf.Tensor:
        shape = self.predict.window_shape(self.network.image_shape)
        is_resized = shape != self.network.image_shape
        return blend_windows(
            slices,
            (lambda windows: self._resize_and_predict(windows, *shape, (SLICE,)))
            if is_resized
            else self._predict_probability,
            shape,
            self.predict.windows_per_side,
            self.predict.batch_size,
            len(self.data.segmentation_classes),
        )

    def _prepare_slices(self, slices: tf.Tensor) -> tf.Tensor:
        raw = tf.cast(slices, tf.float32)
        if self.data.neighbours:
            matched = repeat_single_slice(raw, self.data.stack_size)
        else:
            matched = match_channels(raw, self.network.image_channels)
        return adjust_slices(matched, self.data)

    def _predict_probability(self, slices: tf.Tensor) -> tf.Tensor:
        return self.forward(normalize(slices, self.scaling))
