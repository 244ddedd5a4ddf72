"""Plots of a dataset: slices per patient, foreground fractions, intensities, overlays."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from contract.imaging.decode import read_image
from contract.imaging.encode import encode_png
from contract.plurals import pluralize
from contract.storage import Storage
from trainer.data.dataset_index import SPLITS, Dataset, SliceRecord, Split
from trainer.data.dataset_stats import MIN_INTENSITY, IntensityHistogram, PatientStats
from trainer.visualization import curves
from trainer.visualization.image_grid import image_grid
from trainer.visualization.overlays import draw_overlay

SPLIT_COLORS = {"train": "#0072b2", "valid": "#e69f00", "test": "#009e73"}
"""From the palette of Okabe and Ito."""

_TILES_PER_SPLIT = 8
_MAX_NAMED_PATIENTS = 60
_MAX_POINTS = 2000
_BINS = 96


def plot_slice_counts(patients: Sequence[PatientStats]) -> bytes:
    """A bar per patient with the number of slices; a PNG."""
    figure = curves.new_figure(9.5, 3.4)
    axis = figure.subplots()
    for split in SPLITS:
        positions = [index for index, stats in enumerate(patients) if stats.split == split]
        heights = [patients[index].slices for index in positions]
        if positions:
            counts = pluralize(len(positions), "patient"), pluralize(sum(heights), "slice")
            label = f"{split}: {', '.join(counts)}"
            axis.bar(positions, heights, color=SPLIT_COLORS[split], label=label, width=0.8)
    curves.style_axes(axis, "Slices of each patient", "", "slices")
    axis.grid(visible=False, axis="x")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    _label_patients(axis, patients)
    _draw_legend_above(axis)
    return curves.encode_figure(figure)


def _label_patients(axis: Axes, patients: Sequence[PatientStats]) -> None:
    """Names below the bars if they are readable, else none."""
    if len(patients) > _MAX_NAMED_PATIENTS:
        axis.set_xticks([])
        axis.set_xlabel("patients, by split and name", fontsize=9)
        return
    names = [_escape(stats.patient) for stats in patients]
    axis.set_xticks(range(len(patients)), names, rotation=90, fontsize=7)
    axis.set_xlim(-0.7, len(patients) - 0.3)


def plot_foreground_fractions(dataset: Dataset) -> bytes:
    """For each split the foreground fraction of its slices, as points and a box plot; a PNG."""
    splits: list[Split] = [split for split in SPLITS if dataset.select(split)]
    figure = curves.new_figure(9.5, 0.9 + 0.75 * len(splits))
    axis = figure.subplots()
    for position, split in enumerate(splits):
        percentages = [100 * record.foreground for record in dataset.select(split)]
        _draw_strip(axis, position, percentages, SPLIT_COLORS[split])
    curves.style_axes(axis, "Foreground fraction of each slice", "% of the slice's pixels")
    axis.grid(visible=False, axis="y")
    axis.set_yticks(range(len(splits)), splits, fontsize=9)
    axis.set_ylim(len(splits) - 0.45, -0.55)
    axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
    return curves.encode_figure(figure)


def _draw_strip(axis: Axes, position: int, values: Sequence[float], color: str) -> None:
    """Points with a vertical jitter, which is the same each time, and a box plot."""
    rng = np.random.default_rng(position)
    points = np.array(values)
    if len(points) > _MAX_POINTS:
        points = rng.choice(points, _MAX_POINTS, replace=False)
    height = position + rng.uniform(-0.26, 0.26, len(points))
    axis.scatter(points, height, s=22, color=color, alpha=0.6, linewidths=0)
    lines = {"color": curves.INK, "linewidth": 1.1}
    axis.boxplot(
        [list(values)],
        positions=[position],
        orientation="horizontal",
        widths=0.6,
        showfliers=False,
        boxprops=lines,
        whiskerprops=lines,
        capprops=lines,
        medianprops={"color": curves.MARK, "linewidth": 2.0},
    )


def plot_intensity_histograms(
    histograms: dict[Split, IntensityHistogram], window: tuple[float, float]
) -> bytes:
    """Raw intensities of each split: of all pixels, and of the foreground; a PNG."""
    figure = curves.new_figure(9.5, 3.4)
    pixels, foreground = figure.subplots(1, 2)
    for axis, name, title in (
        (pixels, "pixels", "Intensity of all pixels"),
        (foreground, "foreground", "Intensity of the foreground"),
    ):
        _draw_densities(axis, {split: getattr(histograms[split], name) for split in SPLITS})
        curves.style_axes(axis, title, "raw intensity", "fraction of pixels")
        axis.set_yscale("log", nonpositive="clip")
    # The legend of the left panel has no room for the window.
    _draw_legend_above(pixels)
    _draw_window(pixels, window)
    _draw_legend_above(foreground, [_draw_window(foreground, window)])
    return curves.encode_figure(figure)


def _draw_window(axis: Axes, window: tuple[float, float]) -> Artist:
    """A line at both ends of the intensity window; returns the entry of the legend."""
    style = {"color": curves.MARK, "lw": 1.0, "ls": (0, (4, 3)), "zorder": 1}
    low, high = window
    axis.axvline(high, **style)
    return axis.axvline(low, label=f"window {low:g} to {high:g}", **style)


def _draw_densities(axis: Axes, counts: dict[Split, NDArray[np.int64]]) -> None:
    """A step line for each split, with the same bins for all of them."""
    occupied = np.flatnonzero(sum(counts.values()))
    if not len(occupied):
        return
    low, high = int(occupied[0]), int(occupied[-1]) + 1
    # Each bin has a whole number of intensities; otherwise bins would hold unequal numbers of them.
    width = max(1, math.ceil((high - low) / _BINS))
    edges = np.arange(low, high + width, width)
    for split, pixels in counts.items():
        if total := pixels.sum():
            sums, _ = np.histogram(occupied, edges, weights=pixels[occupied])
            color = SPLIT_COLORS[split]
            axis.stairs(sums / total, edges + MIN_INTENSITY, color=color, label=split, lw=1.6)


def _draw_legend_above(axis: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A legend right of the title, of what has a label; handles: of these only."""
    if handles is None:
        handles = axis.get_legend_handles_labels()[0]
    if handles:
        axis.legend(
            handles=handles,
            frameon=False,
            fontsize=8,
            ncols=3,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0.1,
            handlelength=1.2,
        )


def draw_overlays(dataset: Dataset, window: tuple[float, float], storage: Storage) -> bytes:
    """Up to eight slices of each split with their masks; a PNG.

    window: the raw intensities that are drawn black and white.
    """
    tiles, captions = [], []
    for record in select_example_slices(dataset):
        image = read_image(storage, record.image)
        mask = dataset.masks.read(storage, record.mask)
        tiles.append(draw_overlay(image, mask, window=window, classes=dataset.masks.classes))
        captions.append(f"{record.split} · {record.name}")
    return encode_png(image_grid(tiles, _TILES_PER_SPLIT // 2, captions))


def select_example_slices(dataset: Dataset) -> list[SliceRecord]:
    """Up to eight slices of each split, spread evenly over its patients.

    The same dataset always gives the same slices: the draw is seeded by its fingerprint.
    """
    digest = hashlib.sha256(dataset.fingerprint.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8]))
    selected: list[SliceRecord] = []
    for split in SPLITS:
        shuffled = _shuffle_by_patient(dataset.select(split), rng)
        selected += sorted(shuffled[:_TILES_PER_SPLIT], key=lambda record: record.name)
    return selected


def _shuffle_by_patient(
    records: Sequence[SliceRecord], rng: np.random.Generator
) -> list[SliceRecord]:
    """The slices in random order, the first of every patient before the second of any."""
    shuffled = [records[index] for index in rng.permutation(len(records))]
    counts: dict[str, int] = {}
    rounds = []
    for record in shuffled:
        rounds.append(counts.get(record.patient, 0))
        counts[record.patient] = rounds[-1] + 1
    return [shuffled[index] for index in np.argsort(rounds, kind="stable")]


def _escape(name: str) -> str:
    """A name for matplotlib, which would treat text between two dollar signs as a formula."""
    return name.replace("$", r"\$")
