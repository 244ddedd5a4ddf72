"""`python -m trainer …`: from a TOML file to a bundle and its metrics."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from contract.cli.app import create_app, example_epilog, load_settings, run_app
from contract.cli.options import (
    DEFAULT_STORAGE_ROOT,
    BundleReference,
    ConfigFile,
    Overrides,
    ShowConfig,
    StorageRoot,
    Verbose,
)
from contract.cli.progress import progress_bar
from contract.config import Config
from contract.config.loader import parse_override
from contract.errors import ConfigError
from contract.storage import open_storage

if TYPE_CHECKING:
    from trainer.data.dataset_index import Dataset
    from trainer.evaluation.scores import Evaluation

app = create_app("Prepare slices, train a network on Ray, and evaluate it by patient.")

SplitName = Annotated[str, typer.Option("--split", help="Which split: train, valid or test.")]
BundleOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Settings that replace those of the bundle: data.*, storage.*, predict.batch_size.",
    ),
]
SaveMasks = Annotated[bool, typer.Option("--save-masks", help="Write the predicted masks too.")]
Output = Annotated[
    str | None,
    typer.Option("--output", help="Where to write; absent: next to the bundle's run."),
]


@app.command(epilog=example_epilog("python -m trainer prepare configs/demo.toml"))
def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Check every slice and mask, split by patient, and write the index that training reads."""
    from trainer.data.dataset_index import SPLITS, check_tile_sizes

    chosen = load_settings(config, overrides, show_config)
    dataset = prepare_with_progress(chosen)
    check_tile_sizes(dataset, chosen.network, chosen.predict)
    for split in SPLITS:
        patients, slices = len(dataset.patients(split)), len(dataset.select(split))
        typer.echo(f"{split:6} {patients:5} patients {slices:6} slices")
    typer.echo(f"slices: {dataset.root}")


@app.command(epilog=example_epilog("python -m trainer inspect configs/demo.toml"))
def inspect(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Count patients, slices and foreground, and draw example slices."""
    from trainer.data.dataset_report import create_report

    chosen = load_settings(config, overrides, show_config)
    dataset = prepare_with_progress(chosen)
    destination = open_storage(chosen.storage.root).child(f"inspections/{chosen.run.name}")
    with progress_bar("inspecting slices", len(dataset.slices)) as bar:
        report = create_report(dataset, chosen.data, destination, bar.set)
    typer.echo("split  patients slices empty foreground")
    for stats in report.splits:
        counts = f"{stats.split:6} {stats.patients:8} {stats.slices:6} {stats.empty:5}"
        typer.echo(f"{counts} {stats.foreground:10.2%}")
    typer.echo(f"page: {report.page}")


@app.command(epilog=example_epilog("python -m trainer train configs/demo.toml train.epochs=3"))
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on Ray, or resume the run of this name; writes a bundle at the end."""
    chosen = load_settings(config, overrides, show_config)
    dataset = prepare_with_progress(chosen)
    from trainer.training import launcher

    with progress_bar("training") as bar:
        result = launcher.run_training(chosen, bar.set, dataset)
    monitor = chosen.train.monitor
    typer.echo(f"epochs: {len(result.history)}")
    typer.echo(f"best: epoch {result.best['epoch']:.0f}, {monitor} {result.best[monitor]:.4f}")
    typer.echo(f"run: {result.run}")
    typer.echo(f"bundle: {result.bundle}")


@app.command(epilog=example_epilog("python -m trainer evaluate segfleet-data/runs/demo/bundle"))
def evaluate(
    reference: BundleReference,
    overrides: BundleOverrides = None,
    split: SplitName = "test",
    output: Output = None,
    save_masks: SaveMasks = False,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Evaluate a bundle by patient on a split of its slices; writes tables, images and a report.

    The settings are those of the bundle; override data.root if the slices have moved.
    """
    check_overrides(overrides or ())
    from contract import bundle
    from contract.config.loader import load_config
    from contract.registry import open_bundle
    from contract.storage import LocalStorage
    from trainer.data.dataset_index import SPLITS
    from trainer.evaluation.evaluate import evaluate as evaluate_bundle
    from trainer.evaluation.report import render_report

    if split not in SPLITS:
        raise typer.BadParameter(f"must be one of {', '.join(SPLITS)}", param_hint="--split")
    source = open_bundle(reference, storage)
    folder = bundle.fetch(source)
    chosen = load_config(folder / "config.toml", overrides or ())
    dataset = prepare_with_progress(chosen)
    run_url = source.url.removesuffix("/bundle")
    run = open_storage(run_url) if run_url != source.url else None
    # The metrics of other slices do not overwrite those of the bundle's own slices.
    is_own_dataset = bundle.read_manifest(LocalStorage(folder)).dataset == dataset.fingerprint
    name = split if is_own_dataset else f"{split}-{dataset.fingerprint}"
    destination = open_storage(output or f"{run_url}/evaluation/{name}")
    with progress_bar(f"evaluating {split}", len(dataset.select(split))) as bar:
        evaluation = evaluate_bundle(
            source,
            dataset,
            split,
            chosen.data,
            chosen.predict,
            destination,
            bar.set,
            save_masks,
        )
    destination.write("report.html", render_report(run, evaluation, chosen).encode())
    typer.echo(format_table(evaluation))
    typer.echo(f"report: {destination.url}/report.html")


def check_overrides(overrides: Iterable[str]) -> None:
    """ConfigError for an override that would have no effect on an evaluation."""
    for key, _ in map(parse_override, overrides):
        if not key.startswith(("data.", "storage.")) and key != "predict.batch_size":
            raise ConfigError(
                f"evaluate cannot change {key}, with which the bundle was created: override "
                "data.*, storage.* or predict.batch_size."
            )


def format_table(evaluation: "Evaluation") -> str:
    """The table of patients and its summary, for a terminal."""
    from trainer.evaluation.scores import METRICS

    def cells(values: Iterable[float | None]) -> str:
        return "".join(f"{'–' if value is None else f'{value:.3f}':>13}" for value in values)

    rows = [("patient", "slices", "".join(f"{name:>13}" for name in METRICS))]
    rows += [
        (
            patient.patient,
            patient.slices,
            cells(getattr(patient.counts, name) for name in METRICS),
        )
        for patient in evaluation.patients
    ]
    summaries = [evaluation.summary_of(name) for name in METRICS]
    slices = len(evaluation.slices)
    rows += [
        (label, slices, cells(getattr(summary, field) for summary in summaries))
        for label, field in (("mean", "mean"), ("SD", "sd"), ("min", "min"), ("max", "max"))
    ]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:{width}} {count:>6}{rest}" for name, count, rest in rows)


def prepare_with_progress(config: Config) -> "Dataset":
    """The checked slices of these settings, with a progress bar."""
    from trainer.data.dataset_index import prepare_dataset

    with progress_bar("slices") as bar:
        storage = open_storage(config.storage.root)
        return prepare_dataset(config.data, config.run.seed, storage, bar.set)


if __name__ == "__main__":
    run_app(app)
