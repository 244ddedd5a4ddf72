"""The command that predicts the masks of files."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from contract.cli.app import create_command_group, example_epilog
from contract.cli.options import (
    DEFAULT_STORAGE_ROOT,
    Address,
    BundleReference,
    OnCluster,
    StorageRoot,
    Verbose,
)
from contract.cli.progress_bar import progress_bar
from contract.config import Cluster
from contract.imaging.segmentation_class import MaskFormat, VolumeFormat
from contract.plurals import pluralize
from contract.storage import Storage

if TYPE_CHECKING:
    from inference.batch.predict_files import Failures, PredictionJob
    from inference.batch.scoring import GroundTruth

# Rows of a table on the screen.
_MAX_ROWS = 30

app = create_command_group()

Source = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="An image, a folder or an s3:// prefix of images; or a NIfTI file, a DICOM series or "
        "a folder of these.",
    ),
]
Output = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="Folder or s3:// prefix for the masks.")
]
Overlays = Annotated[
    bool, typer.Option("--overlays", help="Write the slices with their masks drawn over them.")
]
GroundTruthMasks = Annotated[
    str | None,
    typer.Option(
        "--ground-truth", help="Ground truth masks, named like the slices: writes dice.csv."
    ),
]
GroundTruthThreshold = Annotated[
    int | None,
    typer.Option(
        "--ground-truth-threshold",
        min=0,
        help="Ground truth is foreground above this value; absent: decided from its values.",
    ),
]
MaskFormatOption = Annotated[
    MaskFormat,
    typer.Option(
        "--mask-format",
        help="Masks of several classes: class indices with a palette, the grey values of the "
        "training masks, or colors.",
    ),
]
Probabilities = Annotated[
    bool,
    typer.Option(
        "--probabilities", help="Write probabilities too: PNG of 16 bits, or NPZ for classes."
    ),
]
PatientIdRegex = Annotated[
    str | None,
    typer.Option(
        "--patient-id-regex",
        help=r"Regular expression that finds the patient in a file name, such as '^PANCREAS_\d+': "
        "writes dice_by_patient.csv too.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Slices predicted together.")]
VolumeFormatOption = Annotated[
    VolumeFormat,
    typer.Option(
        "--format", help="How the masks of volumes are written; dicom-seg: for DICOM series."
    ),
]


@app.command(epilog=example_epilog("segfleet predict demo@production slices masks"))
def predict(
    bundle: BundleReference,
    source: Source,
    output: Output,
    overlays: Overlays = False,
    probabilities: Probabilities = False,
    mask_format: MaskFormatOption = "indices",
    ground_truth: GroundTruthMasks = None,
    ground_truth_threshold: GroundTruthThreshold = None,
    patient_id_regex: PatientIdRegex = None,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    batch_size: BatchSize = 8,
    volume_format: VolumeFormatOption = "nifti",
    cluster: OnCluster = False,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Write the mask of every slice or volume in INPUT to OUTPUT.

    Existing masks are not predicted again. For volumes, volumes.csv has the milliliters of each
    class.
    """
    from contract.bundle import read_manifest
    from contract.imaging.decode import silence_opencv
    from contract.imaging.volume_files import contains_volumes
    from contract.registry import open_bundle
    from inference.batch.predict_files import OutputFiles, create_job, resume_keys
    from inference.batch.scoring import ground_truth_encoding, open_ground_truth
    from inference.predictor import warn_if_not_applied

    silence_opencv()
    bundle_storage = open_bundle(bundle, storage)
    if contains_volumes(source):
        not_used = {
            "--overlays": overlays,
            "--probabilities": probabilities,
            "--mask-format": mask_format != "indices",
            "--ground-truth": ground_truth,
            "--cluster": cluster or address,
        }
        if given := [name for name, value in not_used.items() if value]:
            raise typer.BadParameter(f"{given[0]} is for slices, and {source} contains volumes")
        _predict_volumes(bundle_storage, source, output, volume_format, batch_size)
        return
    if volume_format != "nifti":
        raise typer.BadParameter(f"--format is for volumes, and {source} contains none")
    manifest = read_manifest(bundle_storage)
    warn_if_not_applied(manifest, "image files")
    window = manifest.intensity_scaling.window
    files = OutputFiles(manifest.classes, window, mask_format, overlays, probabilities)
    job, keys = create_job(source, output, files, manifest.neighbours)
    true_masks = (
        open_ground_truth(
            ground_truth,
            ground_truth_encoding(manifest),
            ground_truth_threshold,
            patient_id_regex,
        )
        if ground_truth
        else None
    )
    remaining = resume_keys(job, keys, bundle_storage)
    if len(remaining) < len(keys):
        typer.echo(f"{len(keys) - len(remaining)} of {len(keys)} masks exist already: skipped")
    ray_cluster = Cluster(address=address) if cluster or address else None
    failures = _predict(job, bundle_storage, remaining, batch_size, ray_cluster)
    count = len(keys) - len(failures)
    typer.echo(f"{pluralize(count, 'mask')} in {job.output.url}")
    if true_masks:
        failures |= _score(true_masks, job, [key for key in keys if key not in failures])
    _report_failures(failures)


def _predict(
    job: "PredictionJob",
    bundle: Storage,
    keys: Sequence[str],
    batch_size: int,
    cluster: Cluster | None,
) -> "Failures":
    """Predict on this machine, or on a cluster if one is given."""
    if not keys:
        return {}
    with progress_bar("predicting", len(keys)) as bar:
        if cluster is None:
            from inference.batch.predict_files import predict_files
            from inference.predictor import load_predictor

            return predict_files(job, load_predictor(bundle), keys, batch_size, bar.set)
        from cluster.connection import ray_session
        from inference.batch.worker_pool import predict_on_cluster

        with ray_session(cluster):
            return predict_on_cluster(job, bundle, keys, batch_size, bar.set)


def _predict_volumes(
    bundle: Storage, source: str, output: str, volume_format: VolumeFormat, batch_size: int
) -> None:
    """Predict volumes on this machine, and print the milliliters of their classes."""
    from inference.batch.volumes import create_volume_job, predict_volumes, resume_volumes
    from inference.predictor import load_predictor

    job = create_volume_job(source, output, volume_format)
    rows, remaining = resume_volumes(job, bundle)
    if rows:
        typer.echo(f"{len(rows)} of {len(job.volumes)} masks exist already: skipped")
    failures: Failures = {}
    if remaining:
        with progress_bar("predicting") as bar:
            failures = predict_volumes(
                job, load_predictor(bundle), remaining, rows, batch_size, bar.set
            )
    width = max((len(row.patient) for row in rows.values()), default=0)
    for row in list(rows.values())[:_MAX_ROWS]:
        volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in row.ml.items())
        typer.echo(f"{row.patient:{width}} {row.slices:5} slices  {volumes}")
    typer.echo(f"{pluralize(len(rows), 'mask')} in {job.output.url}")
    _report_failures(failures)


def _score(ground_truth: "GroundTruth", job: "PredictionJob", keys: Sequence[str]) -> "Failures":
    """Print the Dice of the masks and write the tables of files and, if requested, of patients."""
    from inference.batch.scoring import (
        FILES_TABLE,
        PATIENTS_TABLE,
        DiceScore,
        mean_dice,
        score_files,
        scores_csv,
    )

    with progress_bar("comparing", len(keys)) as bar:
        counts, failures = score_files(ground_truth, job, keys, bar.set)
    if counts:
        classes = job.files.classes
        files = [
            DiceScore(key, tuple(each.dice for each in file_counts))
            for key, file_counts in counts.items()
        ]
        job.output.write(FILES_TABLE, scores_csv("file", files, classes))
        scores = ground_truth.scores(counts)
        if ground_truth.patient_regex:
            job.output.write(PATIENTS_TABLE, scores_csv("patient", scores, classes))
        for score in scores[:_MAX_ROWS]:
            typer.echo(f"{score.dice:7.4f}  {score.name}")
        if len(scores) > _MAX_ROWS:
            table = f"{job.output.url}/{ground_truth.table}"
            typer.echo(f"     …   {len(scores) - _MAX_ROWS} more in {table}")
        typer.echo(f"{mean_dice(scores):7.4f}  mean Dice of {len(scores)} {ground_truth.unit}")
        if len(classes) > 1:
            for index, each in enumerate(classes):
                mean = fmean(score.by_class[index] for score in scores)
                typer.echo(f"{mean:7.4f}  of {each.name}")
    return failures


def _report_failures(failures: "Failures") -> None:
    """Print all failures and exit with 1, if there are any."""
    for reason in failures.values():
        typer.echo(f"error: {reason}", err=True)
    if failures:
        raise typer.Exit(1)
