"""Sliding-window prediction: overlapping windows, blended with a gaussian weight, as graph code."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

TensorFunction = Callable[[tf.Tensor], tf.Tensor]


def blend_windows(
    slices: tf.Tensor,
    predict: TensorFunction,
    shape: tuple[int, int],
    strides_per_window: int,
    batch_size: int,
    num_classes: int,
) -> tf.Tensor:
    """Probabilities of slices of any size from overlapping windows, weighted by a gaussian.

    Only slicing, padding, sums and one loop are used, which every inference engine runs.

    Args:
        slices: float32 [B, H, W, C]. They are padded by repeating their border to a whole number
            of windows.
        predict: Maps windows [n, height, width, C] to probabilities [n, height, width, K].
        shape: Height and width of a window in pixels.
        strides_per_window: The strides are height and width / strides_per_window.
        batch_size: Windows given to predict at once, at most.
        num_classes: K, the number of classes.

    Returns:
        float32 [B, H, W, K]. The sigmas of the gaussian are height / 8 and width / 8, as in nnU-Net
        (Isensee 2021).
    """
    height, width = tf.shape(slices)[1], tf.shape(slices)[2]
    padded = _pad_to_windows(slices, shape, strides_per_window)
    grid = _WindowGrid(padded, shape, strides_per_window)
    weights = tf.constant(_gaussian(shape))
    maps = _predict_in_batches(grid.windows(), predict, batch_size, num_classes) * weights
    planes = tf.split(maps, num_classes, -1)
    total_weight = grid.overlap_add(tf.zeros_like(planes[0]) + weights)
    total = tf.concat([grid.overlap_add(plane) for plane in planes], -1) / total_weight
    return total[:, :height, :width]


def _predict_in_batches(
    windows: tf.Tensor, predict: TensorFunction, batch_size: int, num_classes: int
) -> tf.Tensor:
    """predict(windows), batch by batch: all windows of a large slice at once would need GBs."""
    shape = [None, *windows.shape[1:3], num_classes]

    def predict_next(done: tf.Tensor, maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = predict(windows[done : done + batch_size])
        return done + batch_size, tf.concat([maps, batch], 0)

    _, maps = tf.while_loop(
        lambda done, _: done < tf.shape(windows)[0],
        predict_next,
        (tf.constant(0), tf.zeros([0, *shape[1:]])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape(shape)),
        parallel_iterations=1,
    )
    return maps


class _WindowGrid:
    """A padded slice as blocks of one stride; a window is n x n blocks."""

    def __init__(
        self, padded: tf.Tensor, window_shape: tuple[int, int], blocks_per_window: int
    ) -> None:
        self.padded, self.window_shape, self.blocks = padded, window_shape, blocks_per_window
        self.block_height, self.block_width = (side // blocks_per_window for side in window_shape)
        shape = tf.shape(padded)
        self.batch, self.channels = shape[0], padded.shape[3]
        self.rows = shape[1] // self.block_height - blocks_per_window + 1
        self.columns = shape[2] // self.block_width - blocks_per_window + 1

    def windows(self) -> tf.Tensor:
        """[B * rows * columns, height, width, C]."""
        height, width, count = self.block_height, self.block_width, self.blocks
        shifted = [
            [
                tf.reshape(
                    self.padded[
                        :,
                        a * height : (a + self.rows) * height,
                        b * width : (b + self.columns) * width,
                    ],
                    [self.batch, self.rows, height, self.columns, width, self.channels],
                )
                for b in range(count)
            ]
            for a in range(count)
        ]
        # [a, b, B, row, y, column, x, C] -> [B, row, column, a, y, b, x, C]
        ordered = tf.transpose(
            tf.stack([tf.stack(row) for row in shifted]), [2, 3, 5, 0, 4, 1, 6, 7]
        )
        return tf.reshape(ordered, [-1, *self.window_shape, self.channels])

    def overlap_add(self, maps: tf.Tensor) -> tf.Tensor:
        """The sum of the maps [n, height, width, 1] at their windows' positions: [B, H, W, 1]."""
        height, width, count = self.block_height, self.block_width, self.blocks
        parts = tf.reshape(maps, [self.batch, self.rows, self.columns, count, height, count, width])
        placed = [
            tf.pad(
                tf.reshape(
                    tf.transpose(parts[:, :, :, a, :, b, :], [0, 1, 3, 2, 4]),
                    [self.batch, self.rows * height, self.columns * width],
                ),
                [
                    [0, 0],
                    [a * height, (count - 1 - a) * height],
                    [b * width, (count - 1 - b) * width],
                ],
            )
            for a in range(count)
            for b in range(count)
        ]
        return tf.expand_dims(tf.add_n(placed), -1)


def _pad_to_windows(
    slices: tf.Tensor, window_shape: tuple[int, int], strides_per_window: int
) -> tf.Tensor:
    """Repeat the last rows and columns until whole windows fit: "edge" padding by a gather."""
    shape = tf.shape(slices)
    for axis, size in enumerate(window_shape, start=1):
        length, stride = shape[axis], size // strides_per_window
        excess = tf.maximum(length - size, 0)
        target = size + (excess + stride - 1) // stride * stride
        slices = tf.gather(slices, tf.minimum(tf.range(target), length - 1), axis=axis)
    return slices


def _gaussian(shape: tuple[int, int]) -> np.ndarray:
    """[height, width, 1] weights, 1 at the center; never 0, because the sum of weights divides."""
    column, row = (
        np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * (size / 8) ** 2)) for size in shape
    )
    return np.maximum(np.outer(column, row), 1e-6)[..., None].astype(np.float32)
