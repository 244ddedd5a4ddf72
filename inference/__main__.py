"""`segfleet predict|deploy|service|shutdown|…`: from bundles to masks."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from contract.cli.app import create_app, example_epilog, load_settings, run_app, write_text
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
from contract.config import Cluster, Config
from contract.errors import ClusterError, RegistryError
from contract.imaging.segmentation_class import MaskFormat, VolumeFormat
from contract.plurals import pluralize
from contract.storage import Storage

if TYPE_CHECKING:
    from inference.batch.predict_files import Failures, PredictionJob
    from inference.batch.scoring import GroundTruth

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
VersionNumber = Annotated[int, typer.Argument(metavar="VERSION", help="Number of a version.")]
Stage = Annotated[str, typer.Argument(metavar="STAGE", help="A stage, such as production.")]

# Rows of a table on the screen.
_MAX_ROWS = 30

app = create_app("Predict the masks of slices: of files, or over HTTP with Ray Serve.")


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


@app.command(epilog=example_epilog("segfleet deploy configs/demo.toml serve.port=8080"))
def deploy(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", help="Write a config file for `serve deploy` and start nothing."),
    ] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Write a RayService manifest for KubeRay instead.")
    ] = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Serve the model of serve.model over HTTP.

    On a local cluster until Ctrl-C, on another one until `segfleet shutdown`.
    """
    from inference.serving.client import (
        read_api_key,
        reserve_address,
        service_url,
        wait_for_signal,
    )

    settings = load_settings(config, overrides, show_config, lenient=lenient)
    if kubernetes and not write:
        raise typer.BadParameter("needs --write FILE", param_hint="--kubernetes")
    if write:
        _write_manifest(settings, write, kubernetes)
        return
    key = read_api_key(settings.serve)
    _check_model(settings)
    from cluster.connection import has_address, ray_session
    from inference.serving.deployment import ReplicaSpec
    from inference.serving.request_parsing import key_digest_of
    from inference.serving.service import start_service, stop_service

    digest = key_digest_of(key) if key else None
    reserved = nullcontext() if has_address(settings.cluster) else reserve_address(settings.serve)
    with reserved, ray_session(settings.cluster) as session:
        spec = ReplicaSpec(settings.serve, settings.storage.root, digest, session.is_local)
        start_service(spec, settings.cluster.start_timeout_s)
        typer.echo(f"{settings.serve.model} is served at {service_url(settings.serve)}")
        if not session.is_local:
            typer.echo("it stays on the cluster until `segfleet shutdown`")
            return
        typer.echo("Ctrl-C stops it, and the local cluster it runs on")
        wait_for_signal()
        stop_service()


@app.command(epilog=example_epilog("segfleet shutdown configs/cloud.toml"))
def shutdown(
    config: ConfigFile,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """End the service on the cluster of CONFIG or RAY_ADDRESS."""
    settings = load_settings(config, overrides, lenient=lenient)
    from cluster.connection import has_address, ray_session
    from inference.serving.service import stop_service

    if not has_address(settings.cluster):
        raise ClusterError(
            "neither cluster.address nor RAY_ADDRESS names a cluster: a service on a local "
            "cluster ends with Ctrl-C where `segfleet deploy` runs."
        )
    with ray_session(settings.cluster):
        typer.echo("the service has ended" if stop_service() else "there was no service")


@app.command(epilog=example_epilog("segfleet service configs/demo.toml serve.port=8080"))
def service(
    config: ConfigFile,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Print the model and the status of a running service.

    It is the service at serve.host and serve.port.
    """
    from inference.serving.client import create_service_client

    settings = load_settings(config, overrides, lenient=lenient)
    client = create_service_client(settings.serve)
    model, current = client.model(), client.status()
    rows = {
        "model": f"{model.reference} = version {model.version}, run {model.run}, {model.engine}",
        "input": f"{model.image_size[1]} x {model.image_size[0]} pixels, "
        f"{'grey' if model.image_channels == 1 else 'RGB'}"
        + (f", stacks of {2 * model.neighbours + 1} slices" if model.neighbours else ""),
        "replicas": "; ".join(
            f"version {replica.version}" + (f" at {replica.url}" if replica.url else "")
            for replica in current.replicas
        ),
        "requests": f"{current.requests}, of these rejected {current.rejected}, failed "
        f"{current.errors}",
    }
    if current.latency_s:
        percentiles = current.latency_s.model_dump().items()
        rows["latency"] = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in percentiles)
    load_errors = {replica.load_error for replica in current.replicas if replica.load_error}
    rows |= {"error": " ".join(sorted(load_errors))} if load_errors else {}
    for name, text in rows.items():
        typer.echo(f"{name:10} {text}")


@app.command(epilog=example_epilog("segfleet models register demo segfleet-data/runs/demo/bundle"))
def register(
    name: ModelName,
    bundle: BundleReference,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Refer to the bundle where it is, instead of copying it."),
    ] = False,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
) -> None:
    """Register a bundle as the next version of a model.

    Copies it into the registry.
    """
    from contract.registry import Registry, open_bundle
    from contract.storage import open_storage

    source = open_bundle(bundle, storage).url
    version = Registry(open_storage(storage)).register(name, source, copy=not reference)
    typer.echo(f"{version.name}@{version.version} is {version.bundle}")


@app.command(epilog=example_epilog("segfleet models promote demo 1 production"))
def promote(
    name: ModelName,
    version: VersionNumber,
    stage: Stage,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
) -> None:
    """Point a stage to a version.

    A service that follows the stage changes within seconds.
    """
    from contract.registry import Registry
    from contract.storage import open_storage

    Registry(open_storage(storage)).promote(name, version, stage)
    typer.echo(f"{name}@{stage} is version {version}")


@app.command(epilog=example_epilog("segfleet models rollback demo production"))
def rollback(name: ModelName, stage: Stage, storage: StorageRoot = DEFAULT_STORAGE_ROOT) -> None:
    """Point a stage to the version before its last promotion."""
    from contract.registry import Registry
    from contract.storage import open_storage

    version = Registry(open_storage(storage)).rollback(name, stage)
    typer.echo(f"{name}@{stage} is version {version.version} again")


@app.command("models", epilog=example_epilog("segfleet models list --storage s3://bucket/segfleet"))
def list_models(storage: StorageRoot = DEFAULT_STORAGE_ROOT) -> None:
    """List the registered models, their versions and stages."""
    from contract.registry import Registry, registration_hint
    from contract.storage import open_storage

    root = open_storage(storage)
    registry = Registry(root)
    names = registry.names()
    if not names:
        typer.echo(f"no model is registered in {root.url}/registry: {registration_hint(root)}.")
    for name in names:
        stages = registry.stages(name)
        for version in registry.versions(name):
            pointing = [stage for stage, number in stages.items() if number == version.version]
            label = ", ".join(pointing) or "-"
            typer.echo(f"{name}@{version.version:<4} {label:14} {version.bundle}")


def _write_manifest(settings: Config, path: Path, kubernetes: bool) -> None:
    """Write the file for Ray Serve's own commands or for KubeRay, and say how to use it."""
    from cluster.kubernetes import object_name, rayservice_yaml
    from inference.serving.serve_application import render_serve_config, serve_config

    if kubernetes:
        name = object_name(settings.serve.model.partition("@")[0], "-service")
        write_text(path, rayservice_yaml(settings, name, serve_config(settings)))
        typer.echo(f"written: {path}; start the service with `kubectl apply -f {path}`")
    else:
        write_text(path, render_serve_config(settings))
        typer.echo(f"written: {path}; start the service with `serve deploy {path}`")


def _check_model(config: Config) -> None:
    """Raise RegistryError naming serve.model if there is no valid bundle for it."""
    from contract.registry import Registry, open_version_bundle
    from contract.storage import open_storage

    reference = config.serve.model
    try:
        open_version_bundle(Registry(open_storage(config.storage.root)).resolve(reference))
    except RegistryError as error:
        raise RegistryError(
            f"serve.model = {reference!r} cannot be served, because {error}"
        ) from error


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


if __name__ == "__main__":
    run_app(app)
