"""The report on a dataset, to read before training: tables, plots and one HTML page.

index.html          the page, which contains everything below
dataset_report.csv  one row per patient of a split
counts.png          slices of each patient
foreground.png      foreground fraction of each slice
intensity.png       raw intensities, of all pixels and of the foreground
overlays.png        slices with their masks, spread evenly over the patients
augmentation.png    a training slice next to augmented copies, if there is any augmentation
"""

from collections.abc import Sequence
from dataclasses import dataclass

from contract.config import Data, Network
from contract.host_info import host_info
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage, open_storage
from contract.tables import to_csv
from contract.timestamps import utc_now
from trainer.data import dataset_plots
from trainer.data.augmentation_preview import draw_augmentation_preview
from trainer.data.dataset_index import SPLITS, Dataset, intensity_scaling
from trainer.data.dataset_stats import (
    PatientStats,
    SplitStats,
    measure_intensities,
    patient_stats,
    split_stats,
)
from trainer.visualization import html
from trainer.visualization.overlays import LEGEND

_COLUMNS = (
    "patient",
    "split",
    "slices",
    "empty_slices",
    "foreground_mean",
    "foreground_min",
    "foreground_max",
)


@dataclass(frozen=True)
class DatasetReport:
    """The statistics of a dataset, and the address of the page about it."""

    splits: tuple[SplitStats, ...]
    patients: tuple[PatientStats, ...]
    page: str


def create_report(
    dataset: Dataset,
    data: Data,
    network: Network,
    seed: int,
    destination: Storage,
    on_progress: ProgressCallback = no_progress,
) -> DatasetReport:
    """Read every slice and write the page and its parts; index.html is written last.

    Args:
        dataset: The prepared slices.
        data: The settings [data].
        network: The settings [network]; augmentation is shown at its size.
        seed: The setting run.seed, which determines the augmentation.
        destination: Where the files are written.
        on_progress: Called after each slice.

    Returns:
        The statistics and the address of the page.

    Raises:
        DataError, StorageError: A slice cannot be read.
    """
    storage = open_storage(dataset.root)
    scaling = intensity_scaling(dataset, data)
    histograms, formats = measure_intensities(dataset, storage, on_progress)
    patients = patient_stats(dataset.slices)
    splits = tuple(
        split_stats(split, dataset.select(split), histograms[split], scaling.window)
        for split in SPLITS
        if dataset.select(split)
    )
    plots = {
        "counts": dataset_plots.plot_slice_counts(patients),
        "foreground": dataset_plots.plot_foreground_fractions(dataset),
        "intensity": dataset_plots.plot_intensity_histograms(histograms, scaling.window),
        "overlays": dataset_plots.draw_overlays(dataset, scaling.window, storage),
    }
    if augmented := draw_augmentation_preview(dataset, data, network, seed, storage):
        plots["augmentation"] = augmented
    for name, png in plots.items():
        destination.write(f"{name}.png", png)
    destination.write("dataset_report.csv", patients_csv(patients))
    page = html.render(
        "inspect.html",
        {
            "dataset": dataset,
            "data": data,
            "scaling": scaling,
            "splits": splits,
            "patients": patients,
            "formats": formats,
            "plots": plots,
            "host_info": host_info(),
            "now": utc_now(),
            "colors": LEGEND,
        },
    )
    destination.write("index.html", page.encode())
    return DatasetReport(splits, patients, f"{destination.url}/index.html")


def patients_csv(patients: Sequence[PatientStats]) -> bytes:
    """dataset_report.csv: one row per patient of a split; foreground fractions from 0 to 1."""
    rows = []
    for stats in patients:
        fractions = (stats.foreground, stats.min_foreground, stats.max_foreground)
        formatted = [f"{fraction:.6g}" for fraction in fractions]
        rows.append([stats.patient, stats.split, stats.slices, stats.empty, *formatted])
    return to_csv(_COLUMNS, rows)
