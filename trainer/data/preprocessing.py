"""From a raw slice to the input of the network, and from its output back to the slice's size.

The same functions fill the training cache and are part of the exported graph, so training and
serving cannot differ. Resizing is written as two matrix products instead of tf.image.resize. The
result equals tf.image.resize(antialias=True) (a test compares them), and every inference engine
runs it at any size, while ScaleAndTranslate, the operation behind the latter, exists only in
TensorFlow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from contract.config import Data
from contract.imaging.arrays import LUMA
from contract.imaging.intensity_scaling import IntensityScaling
from trainer.data.slice_adjustments import adjust_slices

# Of positions on the border of an axis, as a fraction of its length; larger than rounding errors.
_TOLERANCE = 1e-5


def resize_slices(
    slices: tf.Tensor, shape: tuple[int, int], channels: int, data: Data
) -> tf.Tensor:
    """Crop raw slices, and resize them to the size of the network; intensities stay raw.

    slices: [B, H, W, C] of any number type, C = 1 (grey) or 3 (RGB). shape: height and width. data:
    the settings [data], which may change every slice, and the part of it that is used.
    Returns float32 [B, height, width, channels], rounded to whole intensities so that a cache of
    integers loses nothing.
    """
    matched = match_channels(tf.cast(slices, tf.float32), channels)
    return tf.round(resize(adjust_slices(matched, data), *shape, *crop_maps(data)))


def match_channels(slices: tf.Tensor, channels: int) -> tf.Tensor:
    """Grey from RGB, or RGB from grey: float32 [B, H, W, 1 or 3] to [B, H, W, channels]."""
    is_rgb = tf.equal(tf.shape(slices)[3], 3)
    if channels == 1:
        matched = tf.cond(
            is_rgb,
            lambda: tf.reduce_sum(slices * tf.constant(LUMA), axis=-1, keepdims=True),
            lambda: slices[:, :, :, :1],
        )
    else:
        matched = tf.cond(
            is_rgb, lambda: slices, lambda: tf.tile(slices[:, :, :, :1], [1, 1, 1, 3])
        )
    return tf.ensure_shape(matched, [None, None, None, channels])


def repeat_single_slice(slices: tf.Tensor, stack_size: int) -> tf.Tensor:
    """float32 [B, H, W, stack_size] from stacks of slices, or from single slices [B, H, W, 1]."""
    stacks = tf.cond(
        tf.equal(tf.shape(slices)[3], stack_size),
        lambda: slices,
        lambda: tf.tile(slices[:, :, :, :1], [1, 1, 1, stack_size]),
    )
    return tf.ensure_shape(stacks, [None, None, None, stack_size])


def normalize(slices: tf.Tensor, scaling: IntensityScaling) -> tf.Tensor:
    """The input of the network from raw intensities, of any shape.

    The exported graph and validation call it; training augments between its two steps.
    """
    return standardize(apply_window(slices, scaling), scaling)


def apply_window(
    slices: Any, scaling: IntensityScaling, clip: Callable[..., Any] = tf.clip_by_value
) -> Any:
    """Clip raw intensities to low..high and scale them to 0..1, for augmentation and previews.

    For tensors, and for NumPy arrays with clip=np.clip.
    """
    return (clip(slices, scaling.low, scaling.high) - scaling.low) / (scaling.high - scaling.low)


def standardize(images: Any, scaling: IntensityScaling) -> Any:
    """The input of the network from intensities in 0..1, tensors or NumPy arrays.

    For data.normalize = "window", these are the same.
    """
    size = scaling.high - scaling.low
    return (images - (scaling.mean - scaling.low) / size) / (scaling.std / size)


class AxisMap(NamedTuple):
    """Maps a position along an axis to factor * position + offset.

    Positions are fractions of the length of the axis, from -0.5 at its start to 0.5 at its end, so
    that they are the same at every resolution.
    """

    factor: float = 1.0
    offset: float = 0.0

    def inverse(self) -> "AxisMap":
        """The map in the other direction."""
        return AxisMap(1.0 / self.factor, -self.offset / self.factor)

    def then(self, other: "AxisMap") -> "AxisMap":
        """This map, and another one of its result."""
        return AxisMap(other.factor * self.factor, other.factor * self.offset + other.offset)


SAME_AXIS = AxisMap()
"""Maps every position to itself."""


def crop_maps(data: Data) -> tuple[AxisMap, AxisMap]:
    """The position in a slice that each position of its part shows, along rows and columns.

    The part is that of data.crop_rows and data.crop_columns.
    """
    rows, columns = (
        AxisMap(end - start, (start + end) / 2.0 - 0.5)
        for start, end in (data.crop_rows, data.crop_columns)
    )
    return rows, columns


def resize(
    maps: tf.Tensor,
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    rows: AxisMap = SAME_AXIS,
    columns: AxisMap = SAME_AXIS,
) -> tf.Tensor:
    """Bilinear resize with anti-aliasing: float32 [B, H, W, C] to [B, height, width, C].

    rows, columns: the position in the maps that each position of the result shows, along either
    axis; the result is 0 where that is outside of the maps (covered_positions).
    """
    shape, is_grey = tf.shape(maps), maps.shape[3] == 1
    # For a single channel this moves nothing in memory, while transposing a slice takes as long as
    # the product.
    planes = tf.expand_dims(tf.squeeze(maps, 3), 1) if is_grey else tf.transpose(maps, [0, 3, 1, 2])
    by_rows = tf.matmul(_interpolation_weights(height, shape[1], rows), planes)
    # The second product is of two matrices. With one right factor for many planes, TensorFlow
    # returns NaN on CPUs with AVX-512, or ends the process (docs/lab-notes.md).
    flat = tf.matmul(
        tf.reshape(by_rows, [-1, shape[2]]),
        _interpolation_weights(width, shape[2], columns),
        transpose_b=True,
    )
    resized = tf.reshape(flat, [shape[0], shape[3], height, width])
    return (
        tf.expand_dims(tf.squeeze(resized, 1), 3)
        if is_grey
        else tf.transpose(resized, [0, 2, 3, 1])
    )


def covered_positions(size: tf.Tensor | int, axis: AxisMap) -> tf.Tensor:
    """Whether each of the positions of an axis is mapped to one on the axis: 0 or 1, [size]."""
    length = tf.cast(size, tf.float32)
    mapped = axis.factor * ((tf.range(length) + 0.5) / length - 0.5) + axis.offset
    return tf.cast(tf.abs(mapped) <= 0.5 + _TOLERANCE, tf.float32)


def _interpolation_weights(
    output_size: tf.Tensor | int, input_size: tf.Tensor | int, axis: AxisMap
) -> tf.Tensor:
    """[output_size, input_size] weights of a triangle filter, as wide as the reduction requires."""
    length = tf.cast(input_size, tf.float32)
    scale = axis.factor * length / tf.cast(output_size, tf.float32)
    centers = (tf.range(tf.cast(output_size, tf.float32)) + 0.5) * scale - 0.5
    if axis != SAME_AXIS:
        centers += (0.5 + axis.offset - axis.factor / 2.0) * length
    positions = tf.range(length)
    distance = tf.abs(centers[:, None] - positions[None, :]) / tf.maximum(tf.abs(scale), 1.0)
    weights = tf.maximum(0.0, 1.0 - distance)
    total = tf.reduce_sum(weights, axis=1, keepdims=True)
    if axis == SAME_AXIS:
        return weights / total
    return covered_positions(output_size, axis)[:, None] * weights / tf.maximum(total, 0.1)
