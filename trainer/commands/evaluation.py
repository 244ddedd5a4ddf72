"""Commands that evaluate and compare bundles."""

from typing import TYPE_CHECKING, Annotated

import typer

import trainer
from contract.cli.app import create_command_group, example_epilog
from contract.cli.options import (
    DEFAULT_STORAGE_ROOT,
    BundleReference,
    StorageRoot,
    Verbose,
)
from contract.plurals import pluralize
from trainer.commands.options import BundleOverrides
from trainer.evaluation.surface_tolerance import SURFACE_TOLERANCE

if TYPE_CHECKING:
    from trainer.data.dataset_index import Split
    from trainer.evaluation.scores import Evaluation

app = create_command_group()

SplitName = Annotated[str, typer.Option("--split", help="Which split: train, valid or test.")]
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
                f"{label}HD95 leaves out {pluralize(each.unmatched, 'slice')} in which exactly "
                "one mask is empty"
            )
    return "\n".join(lines)
