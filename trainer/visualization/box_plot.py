"""The metric of each patient, in groups."""

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.visualization.curves import INK, TRAIN, VALID, encode_figure, new_figure, style_axes


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
    axis.boxplot(
        [list(values) for values in groups.values()],
        showfliers=False,
        widths=0.5,
        boxprops={"color": TRAIN},
        whiskerprops={"color": TRAIN},
        capprops={"color": TRAIN},
        medianprops={"color": VALID, "lw": 1.8},
    )
    # A fixed seed: the same values give the same picture.
    rng = np.random.default_rng(0)
    for position, values in enumerate(groups.values(), start=1):
        x = position + rng.uniform(-0.12, 0.12, len(values))
        axis.plot(x, values, "o", color=VALID, ms=4, alpha=0.7)
    style_axes(axis, title, "")
    axis.set_xticks(range(1, len(groups) + 1), list(groups), color=INK)
    lowest = min((min(values) for values in groups.values() if values), default=0.0)
    axis.set_ylim(max(0.0, lowest - 0.1), 1.0)
    return encode_figure(figure)
