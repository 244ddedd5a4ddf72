"""The metric of each patient, in groups."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from trainer.visualization.curves import (
    INK,
    MARK,
    TRAIN,
    VALID,
    encode_figure,
    new_figure,
    style_axes,
)


def plot_groups(groups: Mapping[str, Sequence[float]], title: str) -> bytes:
    """A box for each group, and a point for each of its values; a PNG.

    A box extends from the first to the third quartile with a line at the median; its whiskers
    extend to the farthest values within 1.5 times its height (Tukey).

    Args:
        groups: The values of each group by its name, from 0 to 1.
        title: The title of the figure.
    """
    figure = new_figure(max(4.5, 1.1 * len(groups) + 1.5), 3.6)
    axis = figure.subplots()
    _draw_boxes(axis, list(groups.values()))
    # A fixed seed: the same values give the same picture.
    rng = np.random.default_rng(0)
    for position, values in enumerate(groups.values(), start=1):
        x = position + rng.uniform(-0.12, 0.12, len(values))
        axis.plot(x, values, "o", color=VALID, ms=4, alpha=0.7)
    _label_groups(axis, list(groups), title, [value for each in groups.values() for value in each])
    return encode_figure(figure)


def plot_pairs(first: Sequence[float], second: Sequence[float], title: str) -> bytes:
    """The boxes of A and B with a line from A to B for each pair of values; a PNG.

    Args:
        first: The values of A, from 0 to 1.
        second: Those of B, in the same order.
        title: The title of the figure.
    """
    figure = new_figure(4.5, 3.6)
    axis = figure.subplots()
    _draw_boxes(axis, [first, second], offset=0.25)
    for pair in zip(first, second, strict=True):
        color = MARK if pair[1] < pair[0] else VALID
        axis.plot([1, 2], pair, "o-", color=color, ms=4, lw=1.0, alpha=0.7)
    _label_groups(axis, ["A", "B"], title, [*first, *second])
    return encode_figure(figure)


def _draw_boxes(axis: Axes, groups: Sequence[Sequence[float]], offset: float = 0.0) -> None:
    """A box for each group; those of a pair are moved outwards by the offset."""
    positions = [index + 1 + offset * (2 * index - 1) for index in range(len(groups))]
    axis.boxplot(
        [list(values) for values in groups],
        positions=positions if offset else None,
        showfliers=False,
        widths=0.25 if offset else 0.5,
        boxprops={"color": TRAIN},
        whiskerprops={"color": TRAIN},
        capprops={"color": TRAIN},
        medianprops={"color": VALID, "lw": 1.8},
    )


def _label_groups(axis: Axes, names: Sequence[str], title: str, values: Sequence[float]) -> None:
    style_axes(axis, title, "")
    axis.set_xticks(range(1, len(names) + 1), list(names), color=INK)
    axis.set_ylim(max(0.0, min(values, default=0.0) - 0.1), 1.02)
