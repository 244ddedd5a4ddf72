"""What a dataset holds, as tables, plots and one HTML page, to be looked at before training.

index.html      the page, with everything below inside it
inspect.csv     one row for each patient of a split
counts.png      slices of each patient
foreground.png  share of foreground of each slice
intensity.png   raw intensities, of all pixels and of the foreground
overlays.png    slices with their masks, drawn evenly over the patients
"""

import csv
import hashlib
import io
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from contract.config import Data
from contract.host_info import HostInfo, host_info
from contract.storage import Storage, open_storage
from trainer.data.dataset_index import SPLITS, Dataset, SliceRecord, Split, read_image, read_mask
from trainer.visualization import curves, html, overlays

COLOURS = {"train": "#0072b2", "valid": "#e69f00", "test": "#009e73"}
"""Of Okabe and Ito's palette."""

_COLUMNS = (
    "patient",
    "split",
    "slices",
    "empty_slices",
    "foreground_mean",
    "foreground_min",
    "foreground_max",
)
_READERS = 8
_TILES = 8
_NAMED_PATIENTS = 60
_DRAWN_POINTS = 2000
_BINS = 96
_LOWEST = -(2**15)
_LEVELS = 2**16


@dataclass(frozen=True)
class PatientStats:
    """The slices of one patient in one split."""

    patient: str
    split: Split
    slices: int
    empty: int
    """Slices without foreground."""
    foreground: float
    """Mean share of foreground of the patient's slices."""
    lowest: float
    highest: float


@dataclass(frozen=True)
class SplitStats:
    """What a split holds."""

    split: Split
    patients: int
    slices: int
    empty: int
    """Slices without foreground."""
    foreground: float
    """Mean share of foreground of its slices."""
    below: float
    """Share of pixels darker than data.intensity_low, which training clips."""
    above: float
    """Share of pixels brighter than data.intensity_high, which training clips."""


@dataclass(frozen=True)
class DatasetReport:
    """What a dataset holds, and where the page about it lies."""

    splits: tuple[SplitStats, ...]
    patients: tuple[PatientStats, ...]
    page: str


@dataclass(frozen=True)
class IntensityHistogram:
    """How many pixels of a split have each raw intensity; entry i is the intensity i - 32768."""

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_LEVELS, np.int64))
    foreground: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_LEVELS, np.int64))

    def share(self, where: slice) -> float:
        """The share of all pixels that lie in a range of entries."""
        return float(self.pixels[where].sum() / max(1, self.pixels.sum()))


@dataclass(frozen=True)
class _SliceHistogram:
    """Counts of one slice's intensities from `lowest` up, and what kind of picture it is."""

    split: Split
    kind: str
    lowest: int
    pixels: NDArray[np.int64]
    foreground: NDArray[np.int64]


def create_report(
    dataset: Dataset, data: Data, destination: Storage, advance: Callable[[int], None]
) -> DatasetReport:
    """Look at every slice and write the page and its parts; index.html is written last.

    advance: told of each slice read, len(dataset.cases) in all. Raises DataError or StorageError
    where a slice cannot be read.
    """
    slices = open_storage(dataset.root)
    levels, kinds = measure_intensities(dataset, data, slices, advance)
    groups = group_by_patient(dataset.slices)
    facts = tuple(
        compute_split_stats(split, dataset.select(split), levels[split], data)
        for split in SPLITS
        if dataset.select(split)
    )
    drawn = {
        "counts": counts_png(groups),
        "foreground": foreground_png(dataset),
        "intensity": intensity_png(levels, data),
        "overlays": overlays_png(dataset, data, slices),
    }
    for name, png in drawn.items():
        destination.write(f"{name}.png", png)
    destination.write("inspect.csv", table(groups).encode())
    made = host_info()
    text = _page(dataset, data, facts, groups, kinds, drawn, made)
    destination.write("index.html", text.encode())
    return DatasetReport(facts, groups, f"{destination.url}/index.html")


def measure_intensities(
    dataset: Dataset, data: Data, slices: Storage, advance: Callable[[int], None]
) -> tuple[dict[Split, IntensityHistogram], dict[str, int]]:
    """Intensities of each split, and how many slices there are of each size and type."""
    levels: dict[Split, IntensityHistogram] = {split: IntensityHistogram() for split in SPLITS}
    kinds: dict[str, int] = {}

    def look(case: SliceRecord) -> _SliceHistogram:
        return measure_slice(case, slices, data.mask_threshold)

    with ThreadPoolExecutor(_READERS, thread_name_prefix="inspect") as pool:
        for one in pool.map(look, dataset.slices):
            start = one.lowest - _LOWEST
            where = slice(start, start + len(one.pixels))
            levels[one.split].pixels[where] += one.pixels
            levels[one.split].foreground[where] += one.foreground
            kinds[one.kind] = kinds.get(one.kind, 0) + 1
            advance(1)
    return levels, dict(sorted(kinds.items(), key=lambda kind: -kind[1]))


def measure_slice(case: SliceRecord, slices: Storage, threshold: int) -> _SliceHistogram:
    """Read a slice and its mask and count the intensities of both; channels count alike."""
    image = read_image(slices, case.image)
    mask = read_mask(slices, case.mask, threshold)
    lowest = int(image.min())
    raised = image.astype(np.int64) - lowest
    pixels = np.bincount(raised.ravel())
    foreground = np.bincount(raised[mask != 0].ravel(), minlength=len(pixels))
    colours = {1: "grey", 3: "RGB"}[image.shape[2]]
    kind = f"{image.shape[1]} × {image.shape[0]} {colours} {image.dtype}"
    return _SliceHistogram(case.split, kind, lowest, pixels, foreground)


def group_by_patient(cases: Sequence[SliceRecord]) -> tuple[PatientStats, ...]:
    """The patients of each split, in the order train, valid, test and then by name."""
    shares: dict[tuple[int, str], list[float]] = {}
    for case in cases:
        shares.setdefault((SPLITS.index(case.split), case.patient), []).append(case.foreground)
    return tuple(_group(SPLITS[key[0]], key[1], found) for key, found in sorted(shares.items()))


def _group(split: Split, patient: str, shares: Sequence[float]) -> PatientStats:
    return PatientStats(
        patient=patient,
        split=split,
        slices=len(shares),
        empty=sum(share == 0 for share in shares),
        foreground=float(np.mean(shares)),
        lowest=min(shares),
        highest=max(shares),
    )


def compute_split_stats(
    split: Split, cases: Sequence[SliceRecord], levels: IntensityHistogram, data: Data
) -> SplitStats:
    """The facts of a split that has at least one case."""
    low = int(np.ceil(data.intensity_low)) - _LOWEST
    high = int(np.floor(data.intensity_high)) - _LOWEST
    return SplitStats(
        split=split,
        patients=len({case.patient for case in cases}),
        slices=len(cases),
        empty=sum(case.foreground == 0 for case in cases),
        foreground=float(np.mean([case.foreground for case in cases])),
        below=levels.share(slice(0, max(0, low))),
        above=levels.share(slice(max(0, high + 1), None)),
    )


def table(groups: Sequence[PatientStats]) -> str:
    """inspect.csv: one row for each patient of a split; shares of foreground from 0 to 1."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for group in groups:
        shares = (group.foreground, group.lowest, group.highest)
        texts = [f"{share:.6g}" for share in shares]
        writer.writerow([group.patient, group.split, group.slices, group.empty, *texts])
    return stream.getvalue()


def counts_png(groups: Sequence[PatientStats]) -> bytes:
    """A bar for each patient, as high as the patient has slices."""
    figure = curves.new_figure(9.5, 3.4)
    axis = figure.subplots()
    for split in SPLITS:
        places = [place for place, group in enumerate(groups) if group.split == split]
        heights = [groups[place].slices for place in places]
        if places:
            label = f"{split}: {len(places)} patients, {sum(heights)} slices"
            axis.bar(places, heights, color=COLOURS[split], label=label, width=0.8)
    curves.style(axis, "Slices of each patient", "", "slices")
    axis.grid(visible=False, axis="x")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    _name_patients(axis, groups)
    _legend_above(axis)
    return curves.png(figure)


def _name_patients(axis: Axes, groups: Sequence[PatientStats]) -> None:
    """Names below the bars where they can be read, else none."""
    if len(groups) > _NAMED_PATIENTS:
        axis.set_xticks([])
        axis.set_xlabel("patients, by split and name", fontsize=9)
        return
    names = [_plain(group.patient) for group in groups]
    axis.set_xticks(range(len(groups)), names, rotation=90, fontsize=7)
    axis.set_xlim(-0.7, len(groups) - 0.3)


def foreground_png(dataset: Dataset) -> bytes:
    """For each split the share of foreground of its slices, as points behind a box."""
    splits: list[Split] = [split for split in SPLITS if dataset.select(split)]
    figure = curves.new_figure(9.5, 0.9 + 0.75 * len(splits))
    axis = figure.subplots()
    for place, split in enumerate(splits):
        _strip(
            axis, place, [100 * case.foreground for case in dataset.select(split)], COLOURS[split]
        )
    curves.style(axis, "Share of foreground of each slice", "% of the slice's pixels")
    axis.grid(visible=False, axis="y")
    axis.set_yticks(range(len(splits)), splits, fontsize=9)
    axis.set_ylim(len(splits) - 0.45, -0.55)
    axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
    return curves.png(figure)


def _strip(axis: Axes, place: int, shares: Sequence[float], colour: str) -> None:
    """Points spread a little over the line so that they can be told apart, the same each time."""
    draw = np.random.default_rng(place)
    drawn = np.array(shares)
    if len(drawn) > _DRAWN_POINTS:
        drawn = draw.choice(drawn, _DRAWN_POINTS, replace=False)
    height = place + draw.uniform(-0.26, 0.26, len(drawn))
    axis.scatter(drawn, height, s=22, color=colour, alpha=0.6, linewidths=0)
    lines = {"color": curves.INK, "linewidth": 1.1}
    axis.boxplot(
        [list(shares)],
        positions=[place],
        orientation="horizontal",
        widths=0.6,
        showfliers=False,
        boxprops=lines,
        whiskerprops=lines,
        capprops=lines,
        medianprops={"color": curves.MARK, "linewidth": 2.0},
    )


def intensity_png(levels: dict[Split, IntensityHistogram], data: Data) -> bytes:
    """Raw intensities of each split: of all pixels, and of the foreground alone."""
    figure = curves.new_figure(9.5, 3.4)
    panels = figure.subplots(1, 2)
    for axis, name, title in (
        (panels[0], "pixels", "Intensity of all pixels"),
        (panels[1], "foreground", "Intensity of the foreground"),
    ):
        _densities(axis, {split: getattr(levels[split], name) for split in SPLITS})
        for edge in (data.intensity_low, data.intensity_high):
            axis.axvline(edge, color=curves.MARK, lw=1.0, ls=(0, (4, 3)), zorder=1)
        curves.style(axis, title, "raw intensity", "share of pixels")
        axis.set_yscale("log", nonpositive="clip")
    _legend_above(panels[0])
    return curves.png(figure)


def _densities(axis: Axes, counts: dict[Split, NDArray[np.int64]]) -> None:
    """A step line for each split over bins that all of them share."""
    held = np.flatnonzero(sum(counts.values()))
    if not len(held):
        return
    low, high = int(held[0]), int(held[-1]) + 1
    # Bins of a whole number of intensities each: others would hold unequal numbers of them.
    width = max(1, math.ceil((high - low) / _BINS))
    edges = np.arange(low, high + width, width)
    for split, pixels in counts.items():
        if total := pixels.sum():
            sums, _ = np.histogram(held, edges, weights=pixels[held])
            colour = COLOURS[split]
            axis.stairs(sums / total, edges + _LOWEST, color=colour, label=split, lw=1.6)


def _legend_above(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(
            frameon=False,
            fontsize=8,
            ncols=3,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0.1,
            handlelength=1.2,
        )


def overlays_png(dataset: Dataset, data: Data, slices: Storage) -> bytes:
    """Up to eight slices of each split with their masks."""
    tiles, captions = [], []
    for case in chosen(dataset):
        image = read_image(slices, case.image)
        mask = read_mask(slices, case.mask, data.mask_threshold)
        window = (data.intensity_low, data.intensity_high)
        tiles.append(overlays.draw_overlay(image, mask, window=window))
        captions.append(f"{case.split} · {case.name}")
    return overlays.encode_png(overlays.image_grid(tiles, _TILES // 2, captions))


def chosen(dataset: Dataset) -> list[SliceRecord]:
    """Up to eight slices of each split, evenly over its patients.

    The same dataset always shows the same ones: the draw is seeded by its fingerprint.
    """
    digest = hashlib.sha256(dataset.fingerprint.encode()).digest()
    draw = np.random.default_rng(int.from_bytes(digest[:8]))
    found: list[SliceRecord] = []
    for split in SPLITS:
        found += sorted(_spread(dataset.select(split), draw)[:_TILES], key=lambda case: case.name)
    return found


def _spread(cases: Sequence[SliceRecord], draw: np.random.Generator) -> list[SliceRecord]:
    """The cases in random order, a first one of every patient before any second one."""
    shuffled = [cases[place] for place in draw.permutation(len(cases))]
    earlier: dict[str, int] = {}
    turns = []
    for case in shuffled:
        turns.append(earlier.get(case.patient, 0))
        earlier[case.patient] = turns[-1] + 1
    return [shuffled[place] for place in np.argsort(turns, kind="stable")]


def _plain(name: str) -> str:
    """A name for matplotlib, which would read what stands between two dollars as a formula."""
    return name.replace("$", r"\$")


def _page(
    dataset: Dataset,
    data: Data,
    facts: Sequence[SplitStats],
    groups: Sequence[PatientStats],
    kinds: dict[str, int],
    drawn: dict[str, bytes],
    made: HostInfo,
) -> str:
    return html.render(
        "inspect.html",
        {
            "dataset": dataset,
            "data": data,
            "splits": facts,
            "groups": groups,
            "kinds": kinds,
            "drawn": drawn,
            "made": made,
            "now": datetime.now(UTC).isoformat(),
            "colours": overlays.LEGEND,
        },
    )
