"""From trained weights to a bundle: a graph that takes raw slices and gives masks.

Everything that turns a slice into a mask is inside the graph: grey or RGB, resizing or tiles,
intensities, the network, and the threshold. Who loads it needs none of our code.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from contract import bundle
from contract.config import Config
from contract.config.loader import to_toml
from contract.storage import Storage
from trainer.networks.registry import build_network
from trainer.data.preprocessing import match_channels, normalize, resize, resize_slices
from trainer.training.checkpoints import ModelState, to_npz

TensorFunction = Callable[[tf.Tensor], tf.Tensor]


def build_inference_model(config: Config, state: ModelState | None = None) -> keras.Model:
    """The network in float32, outside any strategy, with the weights a state begins with."""
    keras.mixed_precision.set_global_policy("float32")
    network = build_network(config.network)
    if state is not None:
        network.set_weights(state[: len(network.weights)])
    return network


def export_bundle(
    network: keras.Model, config: Config, facts: bundle.BundleMetadata, destination: Storage
) -> None:
    """Write a bundle: SavedModel, weights and settings, its manifest last."""
    with tempfile.TemporaryDirectory(prefix="segfleet-bundle-") as name:
        folder = Path(name)
        save_graph(SegmentationModule(network, config), folder / "saved_model")
        (folder / "weights.npz").write_bytes(to_npz(network.get_weights()))
        (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
        bundle.write_bundle(folder, destination, facts)


def save_graph(segmentation: "SegmentationModule", folder: Path) -> None:
    """A SavedModel with the signatures serving_default (uint8 slices) and int16."""
    # Nothing in it is Python that depends on a tensor, and looking for it takes half a second.
    segment = tf.function(segmentation.segment, autograph=False)
    signatures = {
        name: segment.get_concrete_function(
            tf.TensorSpec((None, None, None, None), dtype, name="slices")
        )
        for name, dtype in (("serving_default", tf.uint8), ("int16", tf.int16))
    }
    tf.saved_model.save(segmentation, str(folder), signatures=signatures)


class SegmentationModule(tf.Module):
    """The exported graph: raw slices [B, H, W, C] to probability and mask [B, H, W]."""

    def __init__(self, network: keras.Model, config: Config) -> None:
        super().__init__(name="segmentation")
        self.config = config
        # The weights are kept, and the network out of TensorFlow's sight: saved as a Keras model
        # it would add a graph for each of its layers that nobody calls.
        self.weights = network.weights
        self.network: TensorFunction = lambda slices: network(slices, training=False)

    def segment(self, slices: tf.Tensor) -> dict[str, tf.Tensor]:
        """probability: float32 in 0..1; mask: uint8, 1 where it is above the threshold."""
        maps = self._tiled(slices) if self.config.predict.sliding_window else self._resized(slices)
        probability = tf.clip_by_value(maps[:, :, :, 0], 0.0, 1.0)
        mask = tf.cast(probability > self.config.predict.threshold, tf.uint8)
        return {"probability": probability, "mask": mask}

    def _resized(self, slices: tf.Tensor) -> tf.Tensor:
        network, shape = self.config.network, tf.shape(slices)
        fitted = resize_slices(slices, network.image_size, network.image_channels)
        return resize(self._probability(fitted), shape[1], shape[2])

    def _tiled(self, slices: tf.Tensor) -> tf.Tensor:
        network = self.config.network
        raw = match_channels(tf.cast(slices, tf.float32), network.image_channels)
        predict = self.config.predict
        return blend_tiles(
            raw, self._probability, network.image_size, predict.windows_per_side, predict.batch_size
        )

    def _probability(self, fitted: tf.Tensor) -> tf.Tensor:
        data = self.config.data
        return self.network(normalize(fitted, data.intensity_low, data.intensity_high))


def blend_tiles(
    slices: tf.Tensor, probability: TensorFunction, side: int, steps: int, at_once: int
) -> tf.Tensor:
    """Probabilities of slices of any size from overlapping tiles, weighted by a gaussian.

    slices: float32 [B, H, W, C]; probability maps [n, side, side, C] to [n, side, side, 1] and is
    given at_once tiles at most. Tiles lie side/steps apart; sigma is side/8, as in nnU-Net
    (Isensee 2021). The slice is padded by repetition of its border to a whole number of tiles.
    Only slicing, padding, sums and one loop are used, which every engine runs. Returns
    [B, H, W, 1].
    """
    height, width = tf.shape(slices)[1], tf.shape(slices)[2]
    padded = _pad_to_tiles(slices, side, side // steps)
    blocks = _Blocks(padded, side, steps)
    weights = tf.constant(_gaussian(side))
    maps = _by_parts(blocks.tiles(), probability, at_once) * weights
    total = blocks.overlay(maps) / blocks.overlay(tf.zeros_like(maps) + weights)
    return total[:, :height, :width]


def _by_parts(tiles: tf.Tensor, probability: TensorFunction, at_once: int) -> tf.Tensor:
    """probability(tiles), at_once tiles after another: all of a large slice's would need GBs."""
    shape = [None, *tiles.shape[1:3], 1]

    def more(done: tf.Tensor, maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        part = probability(tiles[done : done + at_once])
        return done + at_once, tf.concat([maps, part], 0)

    _, maps = tf.while_loop(
        lambda done, _: done < tf.shape(tiles)[0],
        more,
        (tf.constant(0), tf.zeros([0, *shape[1:]])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape(shape)),
        parallel_iterations=1,
    )
    return maps


class _Blocks:
    """A padded slice as blocks of one tile step; a tile is steps x steps blocks."""

    def __init__(self, padded: tf.Tensor, side: int, steps: int) -> None:
        self.padded, self.side, self.steps = padded, side, steps
        self.block = side // steps
        shape = tf.shape(padded)
        self.batch, self.channels = shape[0], padded.shape[3]
        self.rows = shape[1] // self.block - steps + 1
        self.columns = shape[2] // self.block - steps + 1

    def tiles(self) -> tf.Tensor:
        """[B * rows * columns, side, side, C]."""
        block, steps = self.block, self.steps
        shifted = [
            [
                tf.reshape(
                    self.padded[
                        :,
                        a * block : (a + self.rows) * block,
                        b * block : (b + self.columns) * block,
                    ],
                    [self.batch, self.rows, block, self.columns, block, self.channels],
                )
                for b in range(steps)
            ]
            for a in range(steps)
        ]
        # [a, b, B, row, y, column, x, C] -> [B, row, column, a, y, b, x, C]
        ordered = tf.transpose(
            tf.stack([tf.stack(row) for row in shifted]), [2, 3, 5, 0, 4, 1, 6, 7]
        )
        return tf.reshape(ordered, [-1, self.side, self.side, self.channels])

    def overlay(self, maps: tf.Tensor) -> tf.Tensor:
        """The sum of all tiles' maps [n, side, side, 1] at their places: [B, H, W, 1]."""
        block, steps = self.block, self.steps
        parts = tf.reshape(maps, [self.batch, self.rows, self.columns, steps, block, steps, block])
        placed = [
            tf.pad(
                tf.reshape(
                    tf.transpose(parts[:, :, :, a, :, b, :], [0, 1, 3, 2, 4]),
                    [self.batch, self.rows * block, self.columns * block],
                ),
                [
                    [0, 0],
                    [a * block, (steps - 1 - a) * block],
                    [b * block, (steps - 1 - b) * block],
                ],
            )
            for a in range(steps)
            for b in range(steps)
        ]
        return tf.expand_dims(tf.add_n(placed), -1)


def _pad_to_tiles(slices: tf.Tensor, side: int, step: int) -> tf.Tensor:
    """Repeat the last rows and columns until whole tiles fit: "edge" padding by a gather."""
    shape = tf.shape(slices)
    for axis in (1, 2):
        size = shape[axis]
        over = tf.maximum(size - side, 0)
        target = side + (over + step - 1) // step * step
        slices = tf.gather(slices, tf.minimum(tf.range(target), size - 1), axis=axis)
    return slices


def _gaussian(side: int) -> np.ndarray:
    """[side, side, 1] weights, 1 at the centre; never 0, so that a corner is still divided."""
    offset = np.arange(side) - (side - 1) / 2
    line = np.exp(-(offset**2) / (2 * (side / 8) ** 2))
    return np.maximum(np.outer(line, line), 1e-6)[..., None].astype(np.float32)
