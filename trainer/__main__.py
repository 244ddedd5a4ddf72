"""The commands of training: from volumes and slices to a bundle that is evaluated by patient."""

from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

import trainer
from contract.cli.app import create_app, example_epilog, load_settings, run_app
from contract.cli.options import (
    DEFAULT_STORAGE_ROOT,
    Address,
    BundleReference,
    ConfigFile,
    Lenient,
    OnCluster,
    Overrides,
    ShowConfig,
    StorageRoot,
    Verbose,
)
from contract.cli.progress_bar import progress_bar
from contract.config import (
    NETWORKS,
    Cluster,
    Config,
    Network,
    closest_match,
    network_name,
    validate,
)
from contract.config.loader import parse_override
from contract.errors import ConfigError, as_sentence
from contract.storage import open_storage
from trainer.evaluation.surface_tolerance import SURFACE_TOLERANCE

if TYPE_CHECKING:
    from contract.bundle import Manifest
    from trainer.data.dataset_index import Split
    from trainer.data.importers.dataset_import import ImportResult
    from trainer.evaluation.scores import Evaluation

app = create_app("Import volumes, train a network on Ray, and evaluate it by patient.")
networks_app = typer.Typer(
    help="List the networks, and show the layers of one.",
    epilog=example_epilog("segfleet networks --image-size 512"),
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(networks_app, name="networks")


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

DatasetAddress = Annotated[
    str, typer.Argument(metavar="DATA", help="Folder or s3:// address of the slices.")
]
PlanOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings that are kept as they are given."),
]
BaseFile = Annotated[
    Path | None, typer.Option("--base", help="A TOML file whose settings are kept.")
]
Minutes = Annotated[
    float,
    typer.Option("--minutes", min=1.0, help="The time for `segfleet train`, all of it included."),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure/--no-measure",
        help="Time some training steps on this machine, or only estimate them; those of a cluster "
        "are always estimated.",
    ),
]
PlanOutput = Annotated[
    Path | None,
    typer.Option(
        "--output", help="The TOML file to write, which must not exist yet; absent: print it."
    ),
]
OriginalFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="The .config file (docs/from-antillia.md).")
]
SplitName = Annotated[str, typer.Option("--split", help="Which split: train, valid or test.")]
BundleOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Settings that replace those of the bundle: data.* that are not part of its graph, "
        "storage.*, predict.batch_size.",
    ),
]
PredictOverrides = Annotated[
    list[str], typer.Argument(metavar="PREDICT.KEY=VALUE...", help="Settings of the prediction.")
]
BundleOutput = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="Folder or s3:// prefix for the new bundle.")
]
WithEnsemble = Annotated[
    bool, typer.Option("--ensemble/--no-ensemble", help="Write the ensemble of all folds.")
]
Members = Annotated[
    list[str],
    typer.Argument(metavar="BUNDLE...", help="Two bundles or more: folders, addresses or names."),
]
EnsembleName = Annotated[
    str | None, typer.Option("--name", help="Name in the manifest; absent: that of OUTPUT.")
]
WeightsFile = Annotated[Path, typer.Argument(metavar="WEIGHTS", help="The .h5 file of Keras.")]
SurfaceTolerance = Annotated[
    float,
    typer.Option(
        "--surface-tolerance",
        min=0.0,
        help="Tolerance of the surface Dice: in mm if the spacing of the slices is known, else "
        "in pixels.",
    ),
]
SaveMasks = Annotated[bool, typer.Option("--save-masks", help="Write the predicted masks too.")]
ComparedReference = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle: its folder, address or name.")
]
ComparisonOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        help="Folder or s3:// prefix for the results; absent: in <storage.root>/comparisons.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", help="Where to write; absent: next to the bundle's run."),
]

ImageSizeOption = Annotated[
    int, typer.Option("--image-size", help="Height and width of the slices, in pixels.")
]
NetworkOrConfig = Annotated[
    str, typer.Argument(metavar="NAME|CONFIG", help="A network with its defaults, or a TOML file.")
]
NetworkOutput = Annotated[
    str, typer.Option("--output", help="Folder or s3:// prefix for the files.")
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
    from trainer.data.importers.patients import PatientRule, check_regex
    from trainer.data.importers.slice_files import ImportOptions

    check_regex(patient_id_regex)
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


@app.command(epilog=example_epilog("segfleet plan slices --minutes 30 --output my.toml"))
def plan(
    data: DatasetAddress,
    overrides: PlanOverrides = None,
    base: BaseFile = None,
    minutes: Minutes = 15.0,
    measure: Measure = True,
    output: PlanOutput = None,
    verbose: Verbose = False,
) -> None:
    """Choose settings for a dataset, and print them as TOML.

    They depend on a fingerprint of the slices and masks, on the machines that will train, and on
    the time. A comment gives the reason for each. The machines are those of the cluster that
    cluster.address or RAY_ADDRESS names, else this one.
    """
    destination = open_storage(str(output.absolute().parent)) if output else None
    if destination and output and destination.exists(output.name):
        raise ConfigError(_existing_file(output))
    text = trainer.plan(data, overrides or (), base=base, minutes=minutes, measure=measure).text
    if destination is None or output is None:
        typer.echo(text, nl=False)
        return
    if not destination.create(output.name, text.encode()):
        raise ConfigError(_existing_file(output))
    typer.echo(f"settings: {output}")


@app.command(epilog=example_epilog("segfleet convert train_eval_infer.config"))
def convert(
    file: OriginalFile,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Print a .config file as TOML.

    Each of its keys has a comment that says what becomes of it.

    Files with the suffixes .config and .ini are those of the Antillia
    Tensorflow-Image-Segmentation projects (docs/from-antillia.md).
    """
    from contract.config.ini.toml_page import convert_to_toml

    typer.echo(convert_to_toml(file, overrides or (), lenient=lenient), nl=False)


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
        typer.echo(f"{split:6} {patients:5} patients {slices:6} slices")
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


@networks_app.callback()
def list_networks(
    ctx: typer.Context, image_size: ImageSizeOption = 256, verbose: Verbose = False
) -> None:
    """List the networks with their sizes for one grey slice and default settings, or show one."""
    if ctx.invoked_subcommand:
        return
    from trainer.components.network_summary import format_count, measure_network
    from trainer.networks.registry import build_network

    typer.echo(f"{'name':22} {'parameters':>10} {'multiply-adds':>13}  paper and settings")
    for section in NETWORKS:
        settings = {"name": network_name(section), "image_size": image_size}
        network = validate({"network": settings}, origin="--image-size").network
        size = measure_network(build_network(network, 1, network.image_channels).inference_model)
        counts = f"{format_count(size.parameters):>10} {format_count(size.multiply_adds):>13}"
        typer.echo(f"{network.name:22} {counts}  {section.model_fields['name'].description}")
        typer.echo(f"{'':48}{', '.join(_own_settings(section))}")


@networks_app.command(epilog=example_epilog("segfleet networks show unet network.num_layers=4"))
def show(
    network: NetworkOrConfig,
    overrides: Overrides = None,
    output: NetworkOutput = ".",
    verbose: Verbose = False,
) -> None:
    """Draw a network and write the table of its layers.

    Writes NAME.svg and NAME.txt; every run has the same two files of its network.
    """
    from trainer.components.network_summary import (
        draw_network,
        format_count,
        layer_table,
        measure_network,
    )
    from trainer.networks.registry import build_network

    config = _load_network(network, overrides or [])
    classes = len(config.data.segmentation_classes)
    built = build_network(config.network, classes, config.input_channels)
    model, size = built.training_model, measure_network(built.inference_model)
    destination = open_storage(output)
    destination.write(f"{model.name}.svg", draw_network(model).encode())
    destination.write(f"{model.name}.txt", layer_table(model).encode())
    typer.echo(f"input: {' x '.join(str(side) for side in model.input_shape[1:])}")
    typer.echo(f"trainable parameters: {size.parameters} ({format_count(size.parameters)})")
    typer.echo(f"multiply-adds of a slice: {format_count(size.multiply_adds)}")
    typer.echo(f"graph: {destination.url}/{model.name}.svg")
    typer.echo(f"layers: {destination.url}/{model.name}.txt")


@app.command(epilog=example_epilog("segfleet train configs/demo.toml train.epochs=3"))
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on Ray, or resume the run of this name.

    Writes a bundle at the end.
    """
    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    try:
        result = trainer.train(chosen)
    except KeyboardInterrupt:
        typer.echo(_interruption(chosen), err=True)
        raise typer.Exit(130) from None
    monitor = chosen.train.monitor
    typer.echo(f"epochs: {len(result.history)}")
    typer.echo(f"best: epoch {result.best['epoch']:.0f}, {monitor} {result.best[monitor]:.4f}")
    typer.echo(f"run: {result.run}")
    typer.echo(f"bundle: {result.bundle}")


@app.command(
    "cross-validate",
    epilog=example_epilog("segfleet cross-validate configs/demo.toml data.folds=4"),
)
def cross_validate(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    ensemble: WithEnsemble = True,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Train a network for each fold, and evaluate all patients.

    Every patient of the train and valid splits is evaluated by the network that was not trained on
    the patient. Folds that are finished are not trained again. Writes a report, and the ensemble of
    all folds as a bundle.
    """
    from trainer.cross_validation.results import format_results

    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    try:
        result = trainer.cross_validate(chosen, ensemble=ensemble)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command continues with the finished epochs.", err=True)
        raise typer.Exit(130) from None
    typer.echo(format_results(result))
    typer.echo(f"report: {result.output}/report.html")
    if result.bundle:
        typer.echo(f"bundle: {result.bundle}")


@app.command(epilog=example_epilog("segfleet evaluate segfleet-data/runs/demo/bundle"))
def evaluate(
    reference: BundleReference,
    overrides: BundleOverrides = None,
    split: SplitName = "test",
    output: Output = None,
    save_masks: SaveMasks = False,
    surface_tolerance: SurfaceTolerance = SURFACE_TOLERANCE,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Evaluate a bundle by patient on a split of its slices.

    Writes tables, images and a report. The settings are those of the bundle; override data.root if
    the slices have moved.
    """
    evaluation = trainer.evaluate(
        reference,
        overrides or (),
        split=check_split(split),
        output=output,
        save_masks=save_masks,
        surface_tolerance=surface_tolerance,
        storage_root=storage,
    )
    typer.echo(format_table(evaluation))
    typer.echo(format_surface_notes(evaluation))
    typer.echo(f"report: {evaluation.output}/report.html")


@app.command(epilog=example_epilog("segfleet compare demo@1 demo@2 --split test"))
def compare(
    first: ComparedReference,
    second: ComparedReference,
    overrides: BundleOverrides = None,
    split: SplitName = "test",
    output: ComparisonOutput = None,
    surface_tolerance: SurfaceTolerance = SURFACE_TOLERANCE,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Compare two bundles on the same patients of a split.

    Writes a paired table, the mean difference with its interval, a signed-rank test, images and a
    report. The slices are those of the first bundle's settings; override data.root if they have
    moved.
    """
    comparison = trainer.compare(
        first,
        second,
        overrides or (),
        split=check_split(split),
        output=output,
        surface_tolerance=surface_tolerance,
        storage_root=storage,
    )
    from trainer.evaluation.comparison_files import format_comparison

    typer.echo(format_comparison(comparison))
    typer.echo(f"report: {comparison.output}/compare.html")


@app.command(
    epilog=example_epilog(
        "segfleet export demo@production windows predict.sliding_window=true predict.overlap=0.75"
    )
)
def export(
    reference: BundleReference,
    output: BundleOutput,
    overrides: PredictOverrides,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Write a bundle with other settings of the prediction.

    It has the weights of the bundle that is named; nothing is trained. The settings are those of
    the section [predict].
    """
    from contract.registry import open_bundle
    from trainer.export.prediction_settings import export_with_settings, load_changed_config

    bundle, destination = open_bundle(reference, storage), open_storage(output)
    config = load_changed_config(bundle, overrides)
    export_with_settings(bundle, config, destination)
    typer.echo(f"bundle: {destination.url}")


@app.command("tune-bundle", epilog=example_epilog("segfleet tune-bundle demo@production tuned"))
def tune_bundle(
    reference: BundleReference,
    output: BundleOutput,
    overrides: BundleOverrides = None,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Write a bundle with settings tuned on validation patients.

    Tries test-time augmentation, thresholds, largest components and filled holes, and keeps what
    raises the Dice of the validation patients. The weights are those of the bundle that is named.
    """
    from contract.bundle import check_no_bundle
    from contract.registry import open_bundle
    from trainer.evaluation.bundle_config import load_bundle_config

    bundle, destination = open_bundle(reference, storage), open_storage(output)
    check_no_bundle(destination)
    config = load_bundle_config(bundle, overrides or (), {})
    dataset = trainer.prepare(config)
    from trainer.evaluation.prediction_tuning import tune_bundle as write_bundle

    with progress_bar("tuning") as bar:
        manifest = write_bundle(bundle, dataset, config, destination, bar.set)
    _print_tried_settings(manifest)
    typer.echo(f"bundle: {destination.url}")


@app.command(
    "tune-folds",
    epilog=example_epilog("segfleet tune-folds configs/demo.toml tuned data.folds=4"),
)
def tune_folds(
    config: ConfigFile,
    output: BundleOutput,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Write the ensemble of all folds, tuned on their patients.

    The same as tune-bundle, after `segfleet cross-validate` with the same settings: every patient
    of the train and valid splits counts, predicted by the network that was not trained on the
    patient. Of [predict], only batch_size is that of the file: the choice starts from the settings
    of the training. Also prints the Dice with settings chosen without the fold of the patient.
    """
    tuned = trainer.tune_folds(load_settings(config, overrides, lenient=lenient), output)
    _print_tried_settings(tuned.manifest)
    start = tuned.manifest.tried_settings[0].dice
    typer.echo(
        f"Dice of the patients of all folds: {tuned.dice:.4f}, before {start:.4f}; with settings "
        f"chosen on the other folds, starting from the defaults, {tuned.nested_dice:.4f}"
    )
    typer.echo(f"bundle: {open_storage(output).url}")


@app.command(
    "import-weights",
    epilog=example_epilog(
        "segfleet import-weights train_eval_infer.config models/best_model.h5 bundle"
    ),
)
def import_weights(
    config: ConfigFile,
    weights: WeightsFile,
    output: BundleOutput,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Write a bundle with the weights of a best_model.h5.

    That is the file of a flexible UNet without normalization that an Antillia project has trained
    (docs/from-antillia.md).
    """
    chosen, destination = load_settings(config, overrides, lenient=lenient), open_storage(output)
    from trainer.training.weights_import import import_weights as write_bundle

    write_bundle(chosen, weights, destination)
    typer.echo(f"bundle: {destination.url}")


@app.command(
    epilog=example_epilog("segfleet ensemble demo@1 demo@2 segfleet-data/both"),
)
def ensemble(
    members: Members,
    output: BundleOutput,
    name: EnsembleName = None,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Write one bundle that predicts the mean of several.

    The probabilities are the means of those of the members. It is evaluated, registered and served
    like any other bundle.
    """
    from contract.registry import open_bundle

    bundles, destination = [open_bundle(each, storage) for each in members], open_storage(output)
    from trainer.export.ensemble import export_ensemble

    export_ensemble(bundles, name or PurePosixPath(destination.url).name, destination)
    typer.echo(f"bundle: {destination.url}")


def _print_tried_settings(manifest: "Manifest") -> None:
    typer.echo(f"{'setting':32} {'value':28} {'Dice':>7}")
    for each in manifest.tried_settings:
        chosen = " chosen" if each.chosen else ""
        typer.echo(f"{each.setting:32} {each.value:28} {each.dice:7.4f}{chosen}")


def _existing_file(file: Path) -> str:
    return f"{file} exists already: name another file, or delete it."


def _own_settings(section: type[Network]) -> list[str]:
    return [name for name in section.model_fields if name not in Network.model_fields]


def _load_network(network: str, overrides: list[str]) -> Config:
    """The settings of a network by its name, or of a file."""
    names = [network_name(section) for section in NETWORKS]
    if network in names:
        defaults = validate({"network": {"name": network}}, origin="defaults")
        return defaults.with_values(dict(map(parse_override, overrides)))
    if not Path(network).exists():
        raise ConfigError(
            as_sentence(
                f"{network} is neither a file nor one of the networks {', '.join(names)}"
                f"{closest_match(network, names)}"
            )
        )
    return load_settings(Path(network), overrides)


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


def _interruption(config: Config) -> str:
    """What an interrupted training has kept."""
    from trainer.training import run_store

    run = run_store.run_storage(config)
    epochs = run_store.count_epochs(run)
    kept = f"{epochs} finished epoch{'' if epochs == 1 else 's'} of {config.train.epochs}"
    return (
        f"interrupted: {kept} are kept in {run.url}; the same command resumes the training."
        if epochs
        else f"interrupted before the first epoch of run {config.run.name} was finished."
    )


def check_split(split: str) -> "Split":
    """The split of an evaluation; a usage error if there is none of this name."""
    from trainer.data.dataset_index import SPLITS

    if split not in SPLITS:
        raise typer.BadParameter(f"must be one of {', '.join(SPLITS)}", param_hint="--split")
    return split


def format_table(evaluation: "Evaluation") -> str:
    """The table of patients and its summary, for a terminal."""
    from trainer.evaluation.metric_columns import format_headings, format_values
    from trainer.evaluation.scores import METRICS

    rows = [("patient", "slices", format_headings(evaluation.distance_unit))]
    rows += [
        (patient.patient, patient.slices, format_values(map(patient.metric, METRICS)))
        for patient in evaluation.patients
    ]
    summaries = [evaluation.summary_of(name) for name in METRICS]
    slices = len(evaluation.slices)
    rows += [
        (label, slices, format_values(getattr(summary, field) for summary in summaries))
        for label, field in (("mean", "mean"), ("SD", "sd"), ("min", "min"), ("max", "max"))
    ]
    if len(evaluation.classes) > 1:
        for name in evaluation.classes:
            means = [evaluation.summary_of(metric, name).mean for metric in METRICS]
            rows.append((f"mean {name}", slices, format_values(means)))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:{width}} {count:>6}{rest}" for name, count, rest in rows)


def format_surface_notes(evaluation: "Evaluation") -> str:
    """The unit and the tolerance of the distances, and where they are undefined."""
    unit = evaluation.distance_unit
    space = "between surfaces of volumes" if unit == "mm" else "between contours within slices"
    lines = [f"HD95 in {unit} {space}; tolerance of NSD {evaluation.surface_tolerance:g} {unit}"]
    for name, each in evaluation.empty_surfaces.items():
        undefined = each.truth_empty + each.prediction_empty + each.no_common_slice
        label = f"{name}: " if len(evaluation.classes) > 1 else ""
        if undefined:
            lines.append(
                f"{label}HD95 is undefined for {undefined} of {len(evaluation.patients)} patients: "
                f"ground truth empty {each.truth_empty}, prediction empty {each.prediction_empty}, "
                f"never both in a slice {each.no_common_slice}"
            )
        if unit == "px" and each.unmatched:
            lines.append(
                f"{label}HD95 leaves out {each.unmatched} slices in which exactly one mask is empty"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    run_app(app)
