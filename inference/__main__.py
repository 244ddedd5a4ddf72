"""`python -m inference predict|deploy|status|undeploy|…`: from bundles to masks."""

from collections.abc import Sequence
from contextlib import nullcontext
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
from contract.config import Cluster, Config
from contract.errors import ClusterError, RegistryError
from contract.storage import Storage

if TYPE_CHECKING:
    from inference.batch.predict_files import Failures, PredictionJob
    from inference.batch.scoring import GroundTruth

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
VersionNumber = Annotated[int, typer.Argument(metavar="VERSION", help="A version's number.")]
Stage = Annotated[str, typer.Argument(metavar="STAGE", help="A stage, such as production.")]

# Rows of a table on the screen.
_ROWS = 30

app = create_app("Turn slices into masks: of files, or over HTTP with Ray Serve.")

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
    typer.Option("--masks", help="True masks, named like the slices: dice.csv is made."),
]
MaskThreshold = Annotated[
    int,
    typer.Option("--mask-threshold", min=0, help="True masks are foreground above this value."),
]
Patients = Annotated[
    str | None,
    typer.Option(
        "--patients",
        help=r"What of a file's name is the patient, such as '^PANCREAS_\d+': "
        "dice_by_patient.csv is made too.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Slices segmented together.")]
OnCluster = Annotated[
    bool,
    typer.Option("--cluster", help="Use all free CPUs or GPUs of a Ray cluster (RAY_ADDRESS)."),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Address of the Ray cluster; means --cluster.")
]


@app.command(epilog=example_epilog("python -m inference predict demo@production slices masks"))
def predict(
    bundle: BundleReference,
    source: Source,
    output: Output,
    overlays: Overlays = False,
    masks: Masks = None,
    mask_threshold: MaskThreshold = 127,
    patients: Patients = None,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    batch: Batch = 8,
    cluster: OnCluster = False,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Write the mask of every slice of INPUT to OUTPUT; masks that are there are not made again."""
    from contract.imaging.encode import silence_opencv
    from contract.registry import open_bundle
    from inference.batch.predict_files import create_job, resume_keys
    from inference.batch.scoring import open_ground_truth

    silence_opencv()
    opened = open_bundle(bundle, storage)
    task, keys = create_job(source, output, overlays)
    truth = open_ground_truth(masks, mask_threshold, patients) if masks else None
    todo = resume_keys(task, keys, opened)
    if len(todo) < len(keys):
        typer.echo(f"{len(keys) - len(todo)} of {len(keys)} masks are there already: skipped")
    ray = Cluster(address=address) if cluster or address else None
    failures = _segment(task, opened, todo, batch, ray)
    typer.echo(f"{len(keys) - len(failures)} masks in {task.output.url}")
    if truth:
        failures |= _score(truth, task, [key for key in keys if key not in failures])
    _tell(failures)


@app.command(epilog=example_epilog("python -m inference deploy configs/demo.toml serve.port=8080"))
def deploy(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Host serve.model over HTTP: on a private cluster until Ctrl-C, on another one for good."""
    from inference.serving.client import read_api_key, reserve_address, service_url, wait_for_signal

    chosen = load_settings(config, overrides, show_config)
    key = read_api_key(chosen.serve)
    _check_model(chosen)
    from cluster.connection import has_address, ray_session
    from inference.serving.deployment import ReplicaSpec, start_service, stop_service
    from inference.serving.request_parsing import digest_of

    digest = digest_of(key) if key else None
    alone = nullcontext() if has_address(chosen.cluster) else reserve_address(chosen.serve)
    with alone, ray_session(chosen.cluster) as connection:
        plan = ReplicaSpec(chosen.serve, chosen.storage.root, digest, connection.private)
        start_service(plan, chosen.cluster.start_timeout_s)
        typer.echo(f"{chosen.serve.model} is served at {service_url(chosen.serve)}")
        if not connection.private:
            typer.echo("it stays on the cluster until `python -m inference undeploy`")
            return
        typer.echo("Ctrl-C ends it, and the private cluster it runs on")
        wait_for_signal()
        stop_service()


@app.command(epilog=example_epilog("python -m inference undeploy configs/cloud.toml"))
def undeploy(config: ConfigFile, overrides: Overrides = None, verbose: Verbose = False) -> None:
    """End the service on the cluster that CONFIG or RAY_ADDRESS names."""
    chosen = load_settings(config, overrides)
    from cluster.connection import has_address, ray_session
    from inference.serving.deployment import stop_service

    if not has_address(chosen.cluster):
        raise ClusterError(
            "no cluster is named by cluster.address or RAY_ADDRESS: a service on a private "
            "cluster ends with Ctrl-C where `python -m inference deploy` runs."
        )
    with ray_session(chosen.cluster):
        typer.echo("the service has ended" if stop_service() else "there was no service")


@app.command(epilog=example_epilog("python -m inference status configs/demo.toml serve.port=8080"))
def status(config: ConfigFile, overrides: Overrides = None, verbose: Verbose = False) -> None:
    """Ask the service at serve.host and serve.port what it hosts and how it does."""
    from inference.serving.client import read_model, read_status

    chosen = load_settings(config, overrides)
    model, found = read_model(chosen.serve), read_status(chosen.serve)
    rows = {
        "model": f"{model.reference} = version {model.version}, run {model.run}, {model.engine}",
        "replicas": "; ".join(
            f"version {one.version}" + (f" at {one.address}" if one.address else "")
            for one in found.replicas
        ),
        "requests": f"{found.requests}, of these refused {found.rejected}, failed {found.errors}",
    }
    if found.latency_s:
        shares = found.latency_s.model_dump().items()
        rows["latency"] = ", ".join(f"{share} {1000 * value:.1f} ms" for share, value in shares)
    problems = {one.load_error for one in found.replicas if one.load_error}
    rows |= {"problem": " ".join(sorted(problems))} if problems else {}
    for name, text in rows.items():
        typer.echo(f"{name:10} {text}")


@app.command(
    epilog=example_epilog("python -m inference register demo segfleet-data/runs/demo/bundle")
)
def register(
    name: ModelName, bundle: BundleReference, storage: StorageRoot = DEFAULT_STORAGE_ROOT
) -> None:
    """Give a bundle the next version of a model."""
    from contract.registry import Registry, open_bundle
    from contract.storage import open_storage

    version = Registry(open_storage(storage)).register(name, open_bundle(bundle, storage).url)
    typer.echo(f"{version.name}@{version.version} is {version.bundle}")


@app.command(epilog=example_epilog("python -m inference promote demo 1 production"))
def promote(
    name: ModelName,
    version: VersionNumber,
    stage: Stage,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
) -> None:
    """Point a stage at a version; a service that hosts the stage follows within seconds."""
    from contract.registry import Registry
    from contract.storage import open_storage

    Registry(open_storage(storage)).promote(name, version, stage)
    typer.echo(f"{name}@{stage} is version {version}")


@app.command("roll-back", epilog=example_epilog("python -m inference roll-back demo production"))
def roll_back(name: ModelName, stage: Stage, storage: StorageRoot = DEFAULT_STORAGE_ROOT) -> None:
    """Point a stage at what it pointed at before its last promotion."""
    from contract.registry import Registry
    from contract.storage import open_storage

    version = Registry(open_storage(storage)).rollback(name, stage)
    typer.echo(f"{name}@{stage} is version {version.version} again")


@app.command(epilog=example_epilog("python -m inference models --storage s3://bucket/segfleet"))
def models(storage: StorageRoot = DEFAULT_STORAGE_ROOT) -> None:
    """List the registered models, their versions and stages."""
    from contract.registry import Registry, registration_hint
    from contract.storage import open_storage

    store = open_storage(storage)
    registry = Registry(store)
    names = registry.names()
    if not names:
        typer.echo(f"no model is registered in {store.url}/registry: {registration_hint(store)}.")
    for name in names:
        stages = registry.stages(name)
        for version in registry.versions(name):
            at = ", ".join(stage for stage, number in stages.items() if number == version.version)
            typer.echo(f"{name}@{version.version:<4} {at or '-':14} {version.bundle}")


def _check_model(config: Config) -> None:
    """RegistryError naming serve.model where no bundle stands behind it."""
    from contract.registry import Registry, open_version_bundle
    from contract.storage import open_storage

    reference = config.serve.model
    try:
        open_version_bundle(Registry(open_storage(config.storage.root)).resolve(reference))
    except RegistryError as error:
        raise RegistryError(f"serve.model = {reference!r} cannot be hosted: {error}") from error


def _segment(
    task: "PredictionJob", bundle: Storage, keys: Sequence[str], batch: int, cluster: Cluster | None
) -> "Failures":
    """Segment on this machine, or on a cluster where one is given."""
    if not keys:
        return {}
    with progress("segmenting", len(keys)) as advance:
        if cluster is None:
            from inference.batch.predict_files import predict_files
            from inference.predictor import load_predictor

            return predict_files(task, load_predictor(bundle), keys, batch, advance)
        from cluster.connection import ray_session
        from inference.batch.worker_pool import predict_on_cluster

        with ray_session(cluster):
            return predict_on_cluster(task, bundle, keys, batch, advance)


def _score(truth: "GroundTruth", task: "PredictionJob", keys: Sequence[str]) -> "Failures":
    """Print the Dice of the masks and write the tables of files and, if asked for, of patients."""
    from inference.batch.scoring import (
        FILES,
        PATIENTS,
        Score,
        mean_dice,
        score_files,
        scores_csv,
    )

    with progress("comparing", len(keys)) as advance:
        overlaps, failures = score_files(truth, task, keys, advance)
    if overlaps:
        files = [Score(key, found.dice) for key, found in overlaps.items()]
        task.output.write(FILES, scores_csv("file", files))
        scores = truth.scores(overlaps)
        if truth.patient:
            task.output.write(PATIENTS, scores_csv("patient", scores))
        for score in scores[:_ROWS]:
            typer.echo(f"{score.dice:7.4f}  {score.name}")
        if len(scores) > _ROWS:
            typer.echo(f"     …   {len(scores) - _ROWS} more in {task.output.url}/{truth.table}")
        typer.echo(f"{mean_dice(scores):7.4f}  mean Dice of {len(scores)} {truth.unit}")
    return failures


def _tell(failures: "Failures") -> None:
    """List what went wrong and end with 1, if anything did."""
    for reason in failures.values():
        typer.echo(f"error: {reason}", err=True)
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_app(app)
