"""The history of a training run as curves."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from contract.imaging.segmentation_class import SegmentationClass

Metrics = Mapping[str, float]

# The palette of Okabe and Ito: two curves that differ in lightness as well.
TRAIN, VALID, OTHER, MARK = "#56b4e9", "#00446e", "#666666", "#d55e00"
INK, RULE = "#20242a", "#d5d9de"

_TITLES = {"dice_coef": "Dice coefficient (soft)", "iou_coef": "IoU (soft)"}
_COLUMNS = 3
_DPI = 110


def plot_metrics(
    history: Sequence[Metrics],
    panels: Sequence[str],
    best: Metrics | None = None,
    classes: Sequence[SegmentationClass] = (),
) -> bytes:
    """A panel for each metric, with the best epoch marked; a PNG.

    Args:
        history: The metrics of each epoch.
        panels: The metrics to draw, without their val_ counterparts; "learning_rate" has a
            logarithmic axis.
        best: The metrics of the best epoch.
        classes: With two or more, a panel also has the validation metric of each class.
    """
    columns = max(1, min(_COLUMNS, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = new_figure(4.1 * columns, 3.1 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, name in zip(axes, panels, strict=False):
        if name == "learning_rate":
            draw_learning_rate(axis, history)
        else:
            draw_class_scores(axis, history, name, classes)
            draw_scores(axis, history, name, best)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return encode_figure(figure)


def plot_losses(history: Sequence[Metrics], best: Metrics | None = None) -> bytes:
    """The training and validation loss, with the best epoch marked; a PNG."""
    figure = new_figure(7.0, 4.2)
    draw_scores(figure.subplots(), history, "loss", best)
    return encode_figure(figure)


def draw_scores(
    axis: Axes, history: Sequence[Metrics], name: str, best: Metrics | None = None
) -> None:
    """A metric of training and of validation over the epochs."""
    for key, label, color in ((name, "training", TRAIN), (f"val_{name}", "validation", VALID)):
        if any(key in metrics for metrics in history):
            # A single epoch has no line: the marker shows it.
            marker = "o" if len(history) < 3 else ""
            axis.plot(*_points(history, key), color=color, label=label, lw=1.8, marker=marker)
    if best:
        _mark_best(axis, name, best)
    style_axes(axis, _TITLES.get(name, name.replace("_", " ").capitalize()), "epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if axis.get_legend_handles_labels()[0]:
        draw_legend(axis)


def draw_class_scores(
    axis: Axes, history: Sequence[Metrics], name: str, classes: Sequence[SegmentationClass]
) -> None:
    """The validation metric of each class over the epochs, if the history has it."""
    for each in classes:
        key = f"val_{name}_{each.name}"
        if any(key in metrics for metrics in history):
            color = tuple(channel / 255 for channel in each.color)
            axis.plot(*_points(history, key), color=color, label=each.name, lw=1.0)


def draw_learning_rate(axis: Axes, history: Sequence[Metrics]) -> None:
    """The learning rate over the epochs, on a logarithmic scale."""
    marker = "o" if len(history) < 3 else ""
    axis.plot(*_points(history, "learning_rate"), color=OTHER, lw=1.8, marker=marker)
    axis.set_yscale("log", nonpositive="clip")
    style_axes(axis, "Learning rate", "epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, size in inches, with space between its panels and at its edges."""
    figure = Figure(figsize=(width, height), dpi=_DPI)
    engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.03, hspace=0.03)
    figure.set_layout_engine(engine)
    return figure


def style_axes(axis: Axes, title: str, x: str, y: str = "") -> None:
    """The style of all our plots."""
    axis.set_title(title, fontsize=10, fontweight="bold", loc="left", color=INK)
    axis.set_xlabel(x, fontsize=9, color=INK)
    axis.set_ylabel(y, fontsize=9, color=INK)
    axis.tick_params(labelsize=8, colors=INK, length=3)
    axis.grid(visible=True, color=RULE, lw=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(RULE)


def draw_legend(axis: Axes, loc: Literal["best", "upper left"] = "best") -> None:
    """A legend that stays readable where a curve passes behind it."""
    axis.legend(fontsize=8, loc=loc, facecolor="white", edgecolor="none", framealpha=0.85)


def encode_figure(figure: Figure) -> bytes:
    """A figure as PNG, drawn without a display and without matplotlib's global state."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def _mark_best(axis: Axes, name: str, best: Metrics) -> None:
    """A line at the best epoch, and its value if the panel shows a validation metric."""
    epoch, value = best["epoch"], best.get(f"val_{name}")
    axis.axvline(epoch, color=MARK, lw=1.0, ls=(0, (4, 3)), zorder=1)
    label = f"best epoch {epoch:.0f}"
    if value is not None:
        axis.plot([epoch], [value], "o", color=MARK, ms=5, zorder=5)
        label += f": {value:.3g}"
    axis.plot([], [], color=MARK, lw=1.0, ls=(0, (4, 3)), label=label)


def _points(history: Sequence[Metrics], key: str) -> tuple[list[float], list[float]]:
    present = [metrics for metrics in history if key in metrics]
    return [metrics["epoch"] for metrics in present], [metrics[key] for metrics in present]
