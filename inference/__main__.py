"""`python -m inference predict|deploy|status|undeploy|…`: from bundles to masks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from contract import commands
from contract.commands import (
    DEFAULT_ROOT,
    BundleReference,
    StorageRoot,
    Verbose,
    application,
    example,
    progress,
)
from contract.config import Cluster
from contract.storage import Storage

if TYPE_CHECKING:
    from inference.dice import Truth
    from inference.predict import Failures, Task

# Rows of a table on the screen.
_ROWS = 30

app = application("Turn slices into masks: of files, or over HTTP with Ray Serve.")

Source = Annotated[
    str, typer.Argument(metavar="INPUT", help="An image, a folder or an s3:// prefix of images.")
]
Output = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="Folder or s3:// prefix the masks are written to.")
]
Overlays = Annotated[
    bool, typer.Option("--overlays", help="Write the slices with their masks tinted over them.")
]
Masks = Annotated[
    str | None,
    typer.Option("--masks", help="True masks, named like the slices: a Dice table is made."),
]
MaskThreshold = Annotated[
    int,
    typer.Option("--mask-threshold", min=0, help="True masks are foreground above this value."),
]
Patients = Annotated[
    str | None,
    typer.Option("--patients", help=r"Dice by patient: an expression such as '^PANCREAS_\d+'."),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Slices segmented together.")]
OnCluster = Annotated[
    bool,
    typer.Option("--cluster", help="Use all free CPUs or GPUs of a Ray cluster (RAY_ADDRESS)."),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Address of the Ray cluster; means --cluster.")
]


@app.command(epilog=example("python -m inference predict pancreas@production slices masks"))
def predict(
    bundle: BundleReference,
    source: Source,
    output: Output,
    overlays: Overlays = False,
    masks: Masks = None,
    mask_threshold: MaskThreshold = 127,
    patients: Patients = None,
    storage: StorageRoot = DEFAULT_ROOT,
    batch: Batch = 8,
    cluster: OnCluster = False,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Write the mask of every slice of INPUT to OUTPUT; masks that are there are not made again."""
    from contract.registry import open_bundle
    from inference.dice import open_truth
    from inference.images import quieten
    from inference.predict import begin, open_task

    quieten()
    opened = open_bundle(bundle, storage)
    task, keys = open_task(source, output, overlays)
    truth = open_truth(masks, mask_threshold, patients) if masks else None
    todo = begin(task, keys, opened)
    if len(todo) < len(keys):
        typer.echo(f"{len(keys) - len(todo)} of {len(keys)} masks are there already: skipped")
    ray = Cluster(address=address) if cluster or address else None
    failures = _segment(task, opened, todo, batch, ray)
    typer.echo(f"{len(keys) - len(failures)} masks in {task.output.url}")
    if truth:
        failures |= _score(truth, task, [key for key in keys if key not in failures])
    _tell(failures)


def _segment(
    task: "Task", bundle: Storage, keys: Sequence[str], batch: int, cluster: Cluster | None
) -> "Failures":
    """Segment on this machine, or on a cluster where one is given."""
    if not keys:
        return {}
    with progress("segmenting", len(keys)) as advance:
        if cluster is None:
            from inference.predict import segment_files
            from inference.segmenter import open_segmenter

            return segment_files(task, open_segmenter(bundle), keys, batch, advance)
        from cluster.connection import connected
        from inference.batch import segment_on_cluster

        with connected(cluster):
            return segment_on_cluster(task, bundle, keys, batch, advance)


def _score(truth: "Truth", task: "Task", keys: Sequence[str]) -> "Failures":
    """Print the Dice of the masks and write the table of files."""
    from inference.dice import TABLE, compare_all, mean, table

    with progress("comparing", len(keys)) as advance:
        overlaps, failures = compare_all(truth, task, keys, advance)
    if overlaps:
        scores = truth.scores(overlaps)
        for score in scores[:_ROWS]:
            typer.echo(f"{score.dice:7.4f}  {score.name}")
        if len(scores) > _ROWS:
            typer.echo(f"     …   {len(scores) - _ROWS} more in {task.output.url}/{TABLE}")
        typer.echo(f"{mean(scores):7.4f}  mean Dice of {len(scores)} {truth.unit}")
        task.output.write(TABLE, table(overlaps))
    return failures


def _tell(failures: "Failures") -> None:
    """List what went wrong and end with 1, if anything did."""
    for reason in failures.values():
        typer.echo(f"error: {reason}", err=True)
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    commands.run(app)
