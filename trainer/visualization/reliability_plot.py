"""The reliability diagram of probabilities."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trainer.visualization.curves import (
    OTHER,
    VALID,
    draw_legend,
    encode_figure,
    new_figure,
    style_axes,
)


class ReliabilityCurve(NamedTuple):
    """The bins of a class."""

    mean_probability: Sequence[float | None]
    fraction: Sequence[float | None]
    """None for bins without pixels."""
    pixels: Sequence[int]
    color: tuple[int, int, int] | None
    """RGB; None: that of validation curves."""


def plot_reliability(curves: Mapping[str, ReliabilityCurve]) -> bytes:
    """The fraction of the pixels that have a class over its probability, by class; a PNG.

    To its right, the number of pixels in each bin, on a logarithmic scale.
    """
    figure = new_figure(8.2, 3.6)
    diagram, counts = figure.subplots(1, 2)
    diagram.plot([0, 1], [0, 1], color=OTHER, lw=1.0, ls=(0, (4, 3)), label="calibrated")
    for name, curve in curves.items():
        color = VALID if curve.color is None else tuple(value / 255 for value in curve.color)
        points = [
            (x, y)
            for x, y in zip(curve.mean_probability, curve.fraction, strict=True)
            if x is not None and y is not None
        ]
        diagram.plot(*zip(*points, strict=True), "o-", color=color, ms=4, lw=1.4, label=name)
        edges = [index / len(curve.pixels) for index in range(len(curve.pixels) + 1)]
        counts.stairs(curve.pixels, edges, color=color, lw=1.4)
    style_axes(diagram, "Reliability", "mean probability of the pixels", "fraction with the class")
    diagram.set_xlim(-0.02, 1.02)
    diagram.set_ylim(-0.02, 1.02)
    draw_legend(diagram, "upper left")
    style_axes(counts, "Pixels", "probability", "pixels of the bin")
    counts.set_yscale("log", nonpositive="clip")
    counts.set_xlim(-0.02, 1.02)
    return encode_figure(figure)
