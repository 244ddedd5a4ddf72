"""Test-time augmentation: zoomed, shifted and mirrored copies of a slice, as graph code.

The probabilities of each view are mapped back to the slice, and every pixel gets the mean over the
views that show it. Zoom, shift and flip act along one axis each, so a view is two matrix products
(trainer.data.preprocessing.resize), which every inference engine runs. A zoom below 1 shows more
than the slice: the outside has the lowest intensity of the window, as in the augmentation of the
training. A zoom above 1 and a shift do not show some of the border, which then has no weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from contract.config import Predict
from trainer.data.preprocessing import SAME_AXIS, AxisMap, covered_positions, resize


@dataclass(frozen=True)
class View:
    """Maps the positions of a slice to those of a view of it, along both axes."""

    rows: AxisMap = SAME_AXIS
    columns: AxisMap = SAME_AXIS


SLICE = View()
"""The slice as it is."""


def augmented_views(predict: Predict) -> tuple[View, ...]:
    """The views of the settings [predict]; the first is the slice as it is."""
    zoomed = [View(AxisMap(zoom), AxisMap(zoom)) for zoom in predict.zooms if zoom != 1.0]
    shifted = [
        view
        for size in predict.shifts
        for shift in (AxisMap(offset=-size), AxisMap(offset=size))
        for view in (View(rows=shift), View(columns=shift))
    ]
    flips = {"horizontal": View(columns=AxisMap(-1.0)), "vertical": View(rows=AxisMap(-1.0))}
    return SLICE, *zoomed, *shifted, *(flips[name] for name in predict.flips)


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

    Returns float32 [B, height, width, K].
    """
    if tuple(views) == (SLICE,):
        return resize(maps, height, width)
    own = tf.split(maps, len(views), 0)
    total = tf.add_n(
        [
            resize(each, height, width, view.rows, view.columns)
            for each, view in zip(own, views, strict=True)
        ]
    )
    count = tf.add_n(
        [
            covered_positions(height, view.rows)[:, None]
            * covered_positions(width, view.columns)[None, :]
            for view in views
        ]
    )
    return total / count[None, :, :, None]
