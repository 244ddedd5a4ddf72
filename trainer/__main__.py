"""`python -m trainer …`: from a TOML file to a bundle and its figures."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from contract.cli.app import (
    DEFAULT_STORAGE_ROOT,
    BundleReference,
    ConfigFile,
    Overrides,
    ShowConfig,
    StorageRoot,
    Verbose,
    create_app,
    example_epilog,
    load_settings,
    progress,
)
from contract.cli.app import run_app as run_app
from contract.config import Config
from contract.config.loader import parse_override
from contract.errors import ConfigError
from contract.storage import open_storage

if TYPE_CHECKING:
    from trainer.data.dataset_index import Dataset
    from trainer.evaluation.evaluate import Evaluation

app = create_app("Prepare slices, train a network on Ray, and evaluate it by patient.")

SplitName = Annotated[str, typer.Option("--split", help="Which split: train, valid or test.")]
BundleOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Settings that replace the bundle's own: data.*, storage.* and predict.batch_size.",
    ),
]
Masks = Annotated[bool, typer.Option("--masks", help="Keep the predicted masks too.")]
Output = Annotated[
    str | None,
    typer.Option("--output", help="Where to write; absent: beside the bundle's run."),
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
    dataset = prepared(chosen)
    check_tile_sizes(dataset, chosen)
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
    """Count patients, slices and foreground, and draw what the slices look like."""
    from trainer.data.dataset_report import create_report as inspected

    chosen = load_settings(config, overrides, show_config)
    dataset = prepared(chosen)
    place = open_storage(chosen.storage.root).child(f"inspections/{chosen.run.name}")
    with progress("inspecting slices", len(dataset.slices)) as advance:
        found = inspected(dataset, chosen.data, place, advance)
    typer.echo("split  patients slices empty foreground")
    for one in found.splits:
        counts = f"{one.split:6} {one.patients:8} {one.slices:6} {one.empty:5}"
        typer.echo(f"{counts} {one.foreground:10.2%}")
    typer.echo(f"page: {found.page}")


@app.command(epilog=example_epilog("python -m trainer train configs/demo.toml train.epochs=3"))
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on Ray, or continue the run of this name; ends with a bundle."""
    chosen = load_settings(config, overrides, show_config)
    slices = prepared(chosen)
    from trainer.training import launcher

    with progress("training") as advance:
        result = launcher.run_training(chosen, advance.set, slices)
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
    masks: Masks = False,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Score a bundle by patient on a split of its slices; tables, pictures and a report.

    The settings are the bundle's own; override data.root where the slices have moved.
    """
    refuse_idle(overrides or ())
    from contract import bundle
    from contract.config.loader import load_config
    from contract.registry import open_bundle
    from contract.storage import LocalStorage
    from trainer.data.dataset_index import SPLITS
    from trainer.evaluation import evaluate as evaluation
    from trainer.evaluation.report import render_report

    if split not in SPLITS:
        raise typer.BadParameter(f"must be one of {', '.join(SPLITS)}", param_hint="--split")
    source = open_bundle(reference, storage)
    folder = bundle.fetch(source)
    chosen = load_config(folder / "config.toml", overrides or ())
    dataset = prepared(chosen)
    home = source.url.removesuffix("/bundle")
    run = open_storage(home) if home != source.url else None
    # The figures of other slices do not take the place of those of the bundle's own.
    own = bundle.read_manifest(LocalStorage(folder)).dataset == dataset.fingerprint
    name = split if own else f"{split}-{dataset.fingerprint}"
    place = open_storage(output or f"{home}/evaluation/{name}")
    with progress(f"evaluating {split}", len(dataset.select(split))) as advance:
        found = evaluation.evaluate(
            source, dataset, split, chosen.data, chosen.predict, place, advance, masks
        )
    place.write("report.html", render_report(run, found, chosen).encode())
    typer.echo(as_text(found))
    typer.echo(f"report: {place.url}/report.html")


def refuse_idle(overrides: Iterable[str]) -> None:
    """ConfigError for an override that an evaluation would accept and not heed."""
    for key, _ in map(parse_override, overrides):
        if not key.startswith(("data.", "storage.")) and key != "predict.batch_size":
            raise ConfigError(
                f"evaluate cannot change {key}, which the bundle was made with: override data.*, "
                "storage.* or predict.batch_size."
            )


def as_text(found: "Evaluation") -> str:
    """The per-patient table and its summary, for a terminal."""
    from trainer.evaluation.evaluate import METRICS

    def cells(values: Iterable[float | None]) -> str:
        return "".join(f"{'–' if v is None else f'{v:.3f}':>13}" for v in values)

    rows = [("patient", "slices", "".join(f"{name:>13}" for name in METRICS))]
    rows += [
        (one.patient, one.slices, cells(getattr(one.counts, name) for name in METRICS))
        for one in found.patients
    ]
    spreads = [found.summary_of(name) for name in METRICS]
    slices = len(found.slices)
    rows += [
        (name, slices, cells(getattr(spread, field) for spread in spreads))
        for name, field in (("mean", "mean"), ("SD", "sd"), ("lowest", "low"), ("highest", "high"))
    ]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:{width}} {count:>6}{rest}" for name, count, rest in rows)


def prepared(config: Config) -> "Dataset":
    """The checked slices of these settings, with progress shown."""
    from trainer.data import dataset_index

    with progress("slices") as advance:
        return dataset_index.prepare_dataset(
            config.data, config.run.seed, open_storage(config.storage.root), advance.set
        )


if __name__ == "__main__":
    run_app(app)
