"""From a raw slice to what the network sees, and from its answer back to the slice's size.

The same functions fill the training cache and stand inside the exported graph, so training and
serving cannot differ. Resizing is written as two matrix products rather than tf.image.resize:
the result equals tf.image.resize(antialias=True) (tests hold them together), and every engine
runs it at any size, while ScaleAndTranslate, the operation behind the latter, is TensorFlow's own.
"""

import tensorflow as tf

# Weights of ITU-R BT.601, the ones OpenCV's RGB2GRAY uses.
_LUMA = (0.299, 0.587, 0.114)


def resize_slices(slices: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """Raw slices at the network's size, still in raw intensities.

    slices: [B, H, W, C] of any number type, C = 1 (grey) or 3 (RGB).
    Returns float32 [B, size, size, channels], rounded to whole intensities so that a cache of
    integers loses nothing.
    """
    return tf.round(resize(match_channels(tf.cast(slices, tf.float32), channels), size, size))


def match_channels(slices: tf.Tensor, channels: int) -> tf.Tensor:
    """Grey from RGB, or RGB from grey: float32 [B, H, W, 1 or 3] to [B, H, W, channels]."""
    colour = tf.equal(tf.shape(slices)[3], 3)
    if channels == 1:
        matched = tf.cond(
            colour,
            lambda: tf.reduce_sum(slices * tf.constant(_LUMA), axis=-1, keepdims=True),
            lambda: slices[:, :, :, :1],
        )
    else:
        matched = tf.cond(
            colour, lambda: slices, lambda: tf.tile(slices[:, :, :, :1], [1, 1, 1, 3])
        )
    return tf.ensure_shape(matched, [None, None, None, channels])


def normalize(slices: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Raw intensities clipped to low..high and scaled to 0..1."""
    return (tf.clip_by_value(slices, low, high) - low) / (high - low)


def resize(maps: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Bilinear resize with anti-aliasing: float32 [B, H, W, C] to [B, height, width, C]."""
    shape, grey = tf.shape(maps), maps.shape[3] == 1
    # For a single channel this moves nothing in memory, where a transposition of a whole slice
    # takes as long as the product.
    planes = tf.expand_dims(tf.squeeze(maps, 3), 1) if grey else tf.transpose(maps, [0, 3, 1, 2])
    rows = tf.matmul(_weights(height, shape[1]), planes)
    # The second product is of two plain matrices. Told to use one right factor for every plane,
    # TensorFlow gives NaN on CPUs with AVX-512, or ends the process (docs/lab-notes.md).
    flat = tf.matmul(tf.reshape(rows, [-1, shape[2]]), _weights(width, shape[2]), transpose_b=True)
    resized = tf.reshape(flat, [shape[0], shape[3], height, width])
    return (
        tf.expand_dims(tf.squeeze(resized, 1), 3) if grey else tf.transpose(resized, [0, 2, 3, 1])
    )


def _weights(size_out: tf.Tensor | int, size_in: tf.Tensor | int) -> tf.Tensor:
    """[size_out, size_in] weights of a triangle filter, as wide as the reduction asks for."""
    scale = tf.cast(size_in, tf.float32) / tf.cast(size_out, tf.float32)
    centers = (tf.range(tf.cast(size_out, tf.float32)) + 0.5) * scale - 0.5
    positions = tf.range(tf.cast(size_in, tf.float32))
    distance = tf.abs(centers[:, None] - positions[None, :]) / tf.maximum(scale, 1.0)
    weights = tf.maximum(0.0, 1.0 - distance)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
