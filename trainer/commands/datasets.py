"""Commands that create, check and show datasets."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import trainer
from contract.cli.app import create_command_group, example_epilog, load_settings
from contract.cli.options import (
    Address,
    ConfigFile,
    Lenient,
    OnCluster,
    Overrides,
    ShowConfig,
    Verbose,
)
from contract.cli.progress_bar import progress_bar
from contract.config import Cluster
from contract.errors import ConfigError
from contract.patterns import compile_pattern
from contract.plurals import pluralize
from contract.storage import open_storage

if TYPE_CHECKING:
    from trainer.data.importers.dataset_import import ImportResult

app = create_command_group()


class PatientFrom(StrEnum):
    """Where `segfleet import` takes the patient of a volume from."""

    NAME = "name"
    PATIENT_ID = "patient-id"


Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE...", help="Files and folders with DICOM series or NIfTI images."
    ),
]
DatasetOutput = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="Folder or s3:// prefix for the dataset.")
]
Labels = Annotated[
    list[Path] | None,
    typer.Option(
        "--labels",
        help="File or folder with NIfTI labels or DICOM segmentations; may be repeated. Absent: "
        "the DICOM segmentations in SOURCE.",
    ),
]
PatientFromOption = Annotated[
    PatientFrom,
    typer.Option(
        "--patient-from",
        help="name: the patient is the name of the NIfTI file or of the patient's folder; "
        "patient-id: PatientID of DICOM.",
    ),
]
PatientIdRegexOption = Annotated[
    str | None,
    typer.Option(
        "--patient-id-regex",
        help="Regular expression that finds the patient in the path of a volume below SOURCE.",
    ),
]
Window = Annotated[
    tuple[int, int] | None,
    typer.Option("--window", metavar="LOW HIGH", help="Clip intensities; absent: keep them all."),
]
ForegroundOnly = Annotated[
    bool, typer.Option("--foreground-only", help="Write only slices with foreground.")
]
CenterCrops = Annotated[
    bool,
    typer.Option(
        "--center-crops",
        help="Write each slice also without a margin of 40 and of 80 pixels (at 512 x 512).",
    ),
]
IgnoreOrigin = Annotated[
    bool,
    typer.Option(
        "--ignore-origin",
        help="Accept NIfTI labels whose header has another origin than the volume.",
    ),
]


@app.command(
    "import",
    epilog=example_epilog("segfleet import Pancreas-CT slices --labels Pancreas-CT-labels"),
)
def import_volumes(
    sources: Sources,
    output: DatasetOutput,
    labels: Labels = None,
    patient_from: PatientFromOption = PatientFrom.NAME,
    patient_id_regex: PatientIdRegexOption = None,
    window: Window = None,
    foreground_only: ForegroundOnly = False,
    center_crops: CenterCrops = False,
    ignore_origin: IgnoreOrigin = False,
    cluster: OnCluster = False,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Turn DICOM series or NIfTI volumes into a dataset of slices.

    Volumes that OUTPUT has already are skipped.
    """
    from trainer.data.importers.dataset_import import plan_import, run_import
    from trainer.data.importers.patients import PatientRule
    from trainer.data.importers.slice_files import ImportOptions

    compile_pattern("--patient-id-regex", patient_id_regex or "")
    if window and window[0] >= window[1]:
        raise typer.BadParameter("LOW must be below HIGH", param_hint="--window")
    options = ImportOptions(
        window=window,
        foreground_only=foreground_only,
        center_crops=center_crops,
        ignore_origin=ignore_origin,
    )
    rule = PatientRule(patient_from.value, patient_id_regex)
    storage = open_storage(output)
    ray_cluster = Cluster(address=address) if cluster or address else None
    if ray_cluster:
        # Workers run in another folder.
        sources = [path.expanduser().absolute() for path in sources]
        labels = [path.expanduser().absolute() for path in labels or []]
    with progress_bar("reading headers") as bar:
        tasks, result = plan_import(sources, labels or [], storage, rule, options, bar.set)
    with progress_bar("importing volumes", len(tasks)) as bar:
        run_import(tasks, result, storage, bar.set, ray_cluster)
    _report_import(result, storage.url)


@app.command(epilog=example_epilog("segfleet prepare configs/demo.toml"))
def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Check all slices and masks, and split them by patient.

    Writes the index that training reads.
    """
    from trainer.data.dataset_index import (
        SPLITS,
        check_neighbours,
        check_tile_sizes,
        intensity_scaling,
    )

    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    dataset = trainer.prepare(chosen)
    check_tile_sizes(dataset, chosen.network, chosen.predict)
    check_neighbours(dataset, chosen.data.neighbours)
    scaling = intensity_scaling(dataset, chosen.data)
    for split in SPLITS:
        patients, slices = len(dataset.patients(split)), len(dataset.select(split))
        counts = pluralize(patients, "patient"), pluralize(slices, "slice")
        typer.echo(f"{split:6} {counts[0]:>14} {counts[1]:>13}")
    if chosen.data.normalize == "foreground":
        typer.echo(
            f"training foreground: clipped to {scaling.low:g} to {scaling.high:g}, mean "
            f"{scaling.mean:.4g}, standard deviation {scaling.std:.4g}"
        )
    typer.echo(f"slices: {dataset.root}")


@app.command(epilog=example_epilog("segfleet inspect configs/demo.toml"))
def inspect(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Count patients, slices and foreground, and draw examples."""
    from trainer.data.dataset_report import create_report

    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    dataset = trainer.prepare(chosen)
    destination = open_storage(chosen.storage.root).child(f"inspections/{chosen.run.name}")
    with progress_bar("inspecting slices", len(dataset.slices)) as bar:
        report = create_report(
            dataset, chosen.data, chosen.network, chosen.run.seed, destination, bar.set
        )
    typer.echo("split  patients slices empty foreground")
    for stats in report.splits:
        counts = f"{stats.split:6} {stats.patients:8} {stats.slices:6} {stats.empty:5}"
        typer.echo(f"{counts} {stats.foreground:10.2%}")
    typer.echo(f"page: {report.page}")


@app.command(epilog=example_epilog("segfleet preview configs/demo.toml"))
def preview(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Draw a training slice next to augmented copies.

    One row per augmentation of [data.augment].
    """
    from trainer.data.augmentation_preview import draw_augmentation_preview

    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    dataset = trainer.prepare(chosen)
    png = draw_augmentation_preview(
        dataset, chosen.data, chosen.network, chosen.run.seed, open_storage(dataset.root)
    )
    if png is None:
        raise ConfigError(
            "no augmentation has a probability above 0: set one in [data.augment], such as "
            "data.augment.rotation_probability=1."
        )
    destination = open_storage(chosen.storage.root).child(f"inspections/{chosen.run.name}")
    destination.write("augmentation.png", png)
    typer.echo(f"image: {destination.url}/augmentation.png")


def _report_import(result: "ImportResult", url: str) -> None:
    """Print what was imported, skipped and not imported; exit with 1 if there are failures."""
    patients = {record.patient for record in result.records}
    slices = sum(record.slices for record in result.records)
    names = {
        value: f" {name}" for each in result.records for value, name in each.label_names.items()
    }
    values = sorted({value for record in result.records for value in record.labels})
    if result.skipped:
        typer.echo(f"{result.skipped} of {len(result.records)} volumes exist already: skipped")
    if result.unlabeled:
        count = len(result.unlabeled)
        typer.echo(f"volumes without labels: {count}, such as {result.unlabeled[0]}: skipped")
    if result.records:
        typer.echo(f"patients: {len(patients)}")
        typer.echo(f"volumes: {len(result.records)}")
        typer.echo(f"slices: {slices}")
        listed = ", ".join(f"{value}{names.get(value, '')}" for value in values)
        typer.echo(f"labels: {listed or 'none'}")
        typer.echo(f"dataset: {url}")
    for reason in result.failures.values():
        typer.echo(f"error: {reason}", err=True)
    if result.failures:
        raise typer.Exit(1)
