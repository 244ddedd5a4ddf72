"""Test-time augmentation: zoomed, shifted and mirrored copies of a slice, as graph code.

The probabilities of each view are mapped back to the slice, and every pixel gets the mean over the
views that show it. Zoom, shift and flip act along one axis each, so a view is two matrix products
(trainer.data.preprocessing.resize), which every inference engine runs. A zoom below 1 shows more
than the slice: the outside has the lowest intensity of the window, as in the augmentation of the
training. A zoom above 1 and a shift do not show some of the border, which then has no weight.

With data.crop_rows and data.crop_columns, the network is given a part of the slice, and all views
are of this part; what lies outside has the probability 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from contract.config import Data, Predict
from trainer.data.preprocessing import (
    SAME_AXIS,
    AxisMap,
    covered_positions,
    crop_maps,
    resize,
)


@dataclass(frozen=True)
class View:
    """Maps the positions of a slice to those of a view of it, along both axes."""

    rows: AxisMap = SAME_AXIS
    columns: AxisMap = SAME_AXIS


SLICE = View()
"""The slice as it is."""


def augmented_views(predict: Predict, data: Data) -> tuple[View, ...]:
    """The views of the settings [predict], of the part of a slice that the settings [data] name.

    The first is this part as it is.
    """
    zoomed = [View(AxisMap(zoom), AxisMap(zoom)) for zoom in predict.zooms if zoom != 1.0]
    shifted = [
        view
        for size in predict.shifts
        for shift in (AxisMap(offset=-size), AxisMap(offset=size))
        for view in (View(rows=shift), View(columns=shift))
    ]
    flips = {"horizontal": View(columns=AxisMap(-1.0)), "vertical": View(rows=AxisMap(-1.0))}
    views = SLICE, *zoomed, *shifted, *(flips[name] for name in predict.flips)
    rows, columns = (axis.inverse() for axis in crop_maps(data))
    return tuple(View(rows.then(view.rows), columns.then(view.columns)) for view in views)


def sample_views(
    slices: tf.Tensor,
    views: Sequence[View],
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    outside: float,
) -> tf.Tensor:
    """Views of slices, float32 [B, H, W, C], in a size: [V * B, height, width, C].

    outside: the intensity where a view shows more than the slice. Intensities are rounded, as those
    of the slices of the training are.
    """
    samples = []
    for view in views:
        if view == SLICE:
            samples.append(tf.round(resize(slices, height, width)))
            continue
        rows, columns = view.rows.inverse(), view.columns.inverse()
        samples.append(tf.round(resize(slices - outside, height, width, rows, columns) + outside))
    return tf.concat(samples, 0)


def mean_of_views(
    maps: tf.Tensor, views: Sequence[View], height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """The probabilities of slices from those of their views, [V * B, h, w, K].

    Returns float32 [B, height, width, K], which is 0 where the first view shows nothing.
    """
    first = views[0]
    if len(views) == 1:
        return resize(maps, height, width, first.rows, first.columns)
    own = tf.split(maps, len(views), 0)
    total = tf.add_n(
        [
            resize(each, height, width, view.rows, view.columns)
            for each, view in zip(own, views, strict=True)
        ]
    )
    covered = [_covered_pixels(view, height, width) for view in views]
    mean = total / tf.maximum(tf.add_n(covered), 1.0)
    return mean if first == SLICE else covered[0] * mean


def _covered_pixels(view: View, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Whether a view shows each pixel of a slice: 0 or 1, [1, height, width, 1]."""
    rows, columns = covered_positions(height, view.rows), covered_positions(width, view.columns)
    return (rows[:, None] * columns[None, :])[None, :, :, None]
