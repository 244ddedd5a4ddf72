"""segfleet check|submit|status|logs|stop|up|down|upload."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract.cli.app import create_app, example_epilog, load_settings, run_app, write_text
from contract.cli.options import ConfigFile, Lenient, Overrides, Verbose
from contract.cli.progress_bar import progress_bar
from contract.config import Config
from contract.errors import ClusterError, StorageError
from contract.plurals import pluralize

if TYPE_CHECKING:
    from cluster.jobs.client import JobClient, JobInfo, JobStatus

app = create_app("Ray clusters, jobs, and nodes in the cloud.")

ClusterFile = Annotated[
    Path | None,
    typer.Option("--file", help="The cluster file; default: ./ray_cluster.yaml."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
OverridesAndJob = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE|JOB",
        help="Settings that replace those of CONFIG, and the name of the job; default: the latest "
        "of the run.",
    ),
]


@app.command(epilog=example_epilog("segfleet check configs/demo.toml train.num_workers=4"))
def check(
    path: ConfigFile,
    overrides: Overrides = None,
    cloud: Annotated[
        bool,
        typer.Option(
            "--cloud", help="Check the cluster that `up` would create, at its maximum size."
        ),
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Check the cluster of a cluster file, at its maximum size."),
    ] = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Check whether the cluster has the resources of CONFIG.

    Checks training, sweep and service on the cluster of CONFIG or RAY_ADDRESS; without one, on this
    machine.
    """
    from cluster import capacity_check
    from cluster.aws import launcher
    from cluster.connection import has_address

    config, initial_nodes = load_settings(path, overrides, lenient=lenient), None
    if cloud:
        tree = launcher.read_cluster_file(file or launcher.CLUSTER_FILE)
        filled = launcher.fill_cluster_file(tree, config.cluster.cloud, launcher.PLACEHOLDER)
        nodes, name = capacity_check.nodes_of_tree(filled), "the cluster of [cluster.cloud]"
        initial_nodes = capacity_check.nodes_of_tree(filled, "min_workers")
    elif file:
        nodes, name = capacity_check.nodes_of_file(file), str(file)
        initial_nodes = capacity_check.nodes_of_file(file, "min_workers")
    elif has_address(config.cluster):
        nodes, name = capacity_check.nodes_of_cluster(config.cluster), "the cluster"
    else:
        nodes, name = (
            capacity_check.nodes_of_machine(config.cluster),
            "a local cluster on this machine",
        )
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    typer.echo(f"{name}: nodes {len(nodes)}, CPUs {cpus:g}, GPUs {gpus:g}")
    findings = capacity_check.check_capacity(config, nodes, initial_nodes)
    for finding in findings:
        typer.echo(f"{finding.purpose:9} {'no ' if finding.errors else 'yes'} {finding.text}")
        for reason in finding.errors:
            typer.echo(f"{'':13} {reason}")
    if any(finding.errors for finding in findings):
        raise typer.Exit(1)


@app.command(epilog=example_epilog("segfleet submit configs/cloud.toml -- train"))
def submit(
    path: ConfigFile,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SECTION.KEY=VALUE... -- COMMAND",
            help="Settings that replace those of CONFIG, and a segfleet command, without CONFIG: "
            "cluster.address=http://head:8265 -- train train.epochs=3.",
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the log.")] = False,
    shared: Annotated[
        bool, typer.Option("--shared", help="Every node has the folders of CONFIG.")
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", help="Write a RayJob manifest for KubeRay and submit nothing."),
    ] = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Run a segfleet command as a job, and follow its log.

    The job runs on a Ray cluster and continues if this machine is switched off. Ctrl-C stops
    following, not the job.
    """
    from cluster.jobs import client, job_package

    # The parser removes the --, which separates the overrides from the command.
    overrides = list(takewhile(_is_override, words or ()))
    config, command = job_package.parse_job_command(
        load_settings(path, overrides, lenient=lenient), (words or [])[len(overrides) :], str(path)
    )
    arguments = _follow_up_arguments(path, words or (), lenient)
    job_package.check_folders(config, shared)
    if write:
        from cluster.kubernetes import object_name, rayjob_yaml

        job = object_name(config.run.name, client.create_job_name(""))
        write_text(write, rayjob_yaml(config, job, command))
        typer.echo(f"written: {write}; start the job with `kubectl apply -f {write}`")
        return
    api, name = client.JobClient(config.cluster), client.create_job_name(config.run.name)
    with client.package_job(config) as package:
        typer.echo(
            f"uploading {package.files} files, {package.size / 1e6:.1f} MB of code and settings "
            f"(limit {job_package.LIMIT_BYTES / 2**20:.0f} MB; data stays in the storage)",
            err=True,
        )
        api.submit(name, command, package.folder, config.run.name)
    typer.echo(f"job {name} on {api.address}: {' '.join(command)}", err=True)
    if detach:
        typer.echo(_follow_up_commands(arguments, name), err=True)
        return
    _follow(api, config, name, arguments)


@app.command(epilog=example_epilog("segfleet status configs/cloud.toml"))
def status(
    path: ConfigFile,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """List the jobs of a run, including finished ones.

    If no cluster responds, the jobs are read from the storage of the run. The exit code is 1 if the
    cluster requires a token that is missing.
    """
    from cluster.jobs.client import TokenError

    config = load_settings(path, overrides, lenient=lenient)
    statuses, error = _list_jobs(config)
    for item in statuses:
        typer.echo(f"{item.started_at}  {item.job}  {item.description}  {item.command}")
    if isinstance(error, TokenError):
        raise error
    if not statuses:
        typer.echo(f"run {config.run.name} has no jobs yet.")
    if error:
        typer.echo(f"read from the storage only: {error}", err=True)


@app.command(epilog=example_epilog("segfleet logs configs/cloud.toml"))
def logs(
    path: ConfigFile,
    words: OverridesAndJob = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Print the log of a job, and follow it while the job runs.

    A finished job needs no cluster. The exit code is that of the job, or 1 if it is not known.
    """
    from cluster.jobs import client, job_store

    overrides, job = _split_words(words or ())
    config = load_settings(path, overrides, lenient=lenient)
    selected = _select_job(config, job)
    if selected.is_active:
        arguments = _follow_up_arguments(path, overrides, lenient)
        _follow(client.JobClient(config.cluster), config, selected.job, arguments)
        return
    sys.stdout.buffer.write(job_store.read_log(job_store.jobs_storage(config), selected.job))
    _exit_as_job(selected, selected.description)


@app.command(epilog=example_epilog("segfleet stop configs/cloud.toml"))
def stop(
    path: ConfigFile,
    words: OverridesAndJob = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0, help="Seconds to wait for the next checkpoint."),
    ] = 900.0,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for a checkpoint.")] = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Stop a job after its next checkpoint.

    The same command resumes it from there.
    """
    from cluster.jobs import client, job_store

    overrides, job = _split_words(words or ())
    config = load_settings(path, overrides, lenient=lenient)
    selected = _select_job(config, job)
    record = job_store.read_job(job_store.jobs_storage(config), selected.job)
    if not selected.is_active and not selected.status.startswith("running"):
        raise ClusterError(f"job {selected.job} is not running: it is {selected.status}.")
    if now or record is None:
        client.JobClient(config.cluster).stop(selected.job)
        typer.echo(f"job {selected.job} is stopped without waiting for a checkpoint.")
        return
    job_store.request_stop(job_store.jobs_storage(config), selected.job, timeout)
    typer.echo(
        f"job {selected.job} will stop after its next checkpoint, or after {timeout:.0f} s; "
        f"follow it with `segfleet logs {_follow_up_arguments(path, overrides, lenient)}`."
    )


@app.command(epilog=example_epilog("segfleet up configs/cloud.toml cluster.cloud.max_workers=2"))
def up(
    path: ConfigFile,
    overrides: Overrides = None,
    file: ClusterFile = None,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be created, and its price.")
    ] = False,
    write_only: Annotated[
        bool,
        typer.Option(
            "--write-only",
            help="Create bucket, roles and security group and write the cluster file, but start no "
            "node.",
        ),
    ] = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Start the cluster of [cluster.cloud] on AWS.

    Shows its price and asks for confirmation first.
    """
    from cluster.aws import instances, launcher, resources

    config = load_settings(path, overrides, lenient=lenient)
    cloud, source = config.cluster.cloud, file or launcher.CLUSTER_FILE
    launcher.check_ready(config, source)
    if not dry_run:
        resources.check_credentials(cloud.region)
    price, note = _spot_price(config)
    plan = launcher.create_plan(config, resources.find_buckets(config), price)
    table = instances.load_table()
    for line in plan.lines:
        typer.echo(line)
    typer.echo(
        f"price           {plan.idle_usd:.2f} USD an hour when idle, at most "
        f"{plan.max_usd:.2f} with all workers on demand\n"
        f"                (prices of {table.date} in {table.region}, without tax and traffic; "
        f"current prices: {table.look_up})"
    )
    if note:
        typer.echo(f"note: {note}", err=True)
    if dry_run:
        return
    if not yes:
        typer.confirm("Create these resources, at this cost?", abort=True)
    if write_only:
        written = launcher.create_cluster_file(config, source)
        typer.echo(f"written: {written}; start the cluster with `ray up {written}`")
        return
    written = launcher.up(config, source)
    typer.echo(
        f"cluster {launcher.cluster_name(cloud)} is running. In a second terminal, run:\n"
        f"  ray dashboard {written}\n"
        "then, in this one:\n"
        "  export RAY_AUTH_MODE=token\n"
        f"  segfleet submit {_follow_up_arguments(path, (), lenient)} -- train\n"
        f"and when finished: segfleet down {_follow_up_arguments(path, (), lenient)}"
    )


@app.command(epilog=example_epilog("segfleet down configs/cloud.toml"))
def down(
    path: ConfigFile,
    overrides: Overrides = None,
    yes: Yes = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Terminate all nodes, and check that none is left."""
    from cluster.aws import launcher, resources

    config = load_settings(path, overrides, lenient=lenient)
    cloud = config.cluster.cloud
    name = launcher.cluster_name(cloud)
    nodes = resources.list_instances(name, cloud.region)
    typer.echo(f"cluster {name} in {cloud.region} has {len(nodes)} nodes")
    if nodes and not yes:
        typer.confirm("Terminate them, with every job on them?", abort=True)
    launcher.down(config)
    typer.echo(
        f"no node of cluster {name} is left. The bucket, roles and security group remain; only "
        "the content of the bucket costs money."
    )


@app.command(epilog=example_epilog("segfleet upload ~/slices s3://my-bucket/slices"))
def upload(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to copy.")],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="An s3:// URL or a folder.")
    ],
    verbose: Verbose = False,
) -> None:
    """Copy a folder to storage, except unchanged files."""
    from cluster import upload as uploading
    from contract.storage import open_storage

    storage = open_storage(destination)
    files = uploading.find_changed_files(folder, storage)
    with progress_bar("uploading", len(files)) as bar:
        uploading.upload_files(folder, files, storage, lambda name: bar.update(1, name))
    typer.echo(f"uploaded {pluralize(len(files), 'file')} to {storage.url}")


def _spot_price(config: Config) -> tuple[float | None, str]:
    """The current price of a spot worker, or None and why it is not known."""
    from cluster.aws import resources

    cloud = config.cluster.cloud
    if not cloud.spot:
        return None, ""
    try:
        return resources.find_spot_price(cloud.worker_type, cloud.region), ""
    except ClusterError as error:
        return None, f"the spot price is not known: {error}"


def _is_override(word: str) -> bool:
    """Whether a word is SECTION.KEY=VALUE; names of jobs and commands have no equals sign."""
    return "=" in word and not word.startswith("-")


def _split_words(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The overrides and the name of the job among the words after CONFIG."""
    overrides = [word for word in words if _is_override(word)]
    jobs = [word for word in words if not _is_override(word)]
    if len(jobs) > 1:
        raise ClusterError(f"{' '.join(jobs)} are several jobs: name one of them, or none.")
    return overrides, next(iter(jobs), None)


def _follow_up_arguments(path: Path, words: Sequence[str], lenient: bool) -> str:
    """CONFIG, how it is read, and the overrides that determine where the jobs of the run are."""
    sections = ("run.", "storage.", "cluster.")
    overrides = [word for word in words if _is_override(word) and word.startswith(sections)]
    return shlex.join([str(path), *overrides, *(["--lenient"] if lenient else [])])


def _follow(api: "JobClient", config: Config, job: str, arguments: str) -> None:
    """Print a job's log to its end; exits with the job's exit code.

    arguments: CONFIG and the overrides of the commands that are suggested after Ctrl-C.
    """

    def write(text: str) -> None:
        typer.echo(text, nl=False)

    try:
        info = api.follow(job, write)
    except KeyboardInterrupt:
        typer.echo(f"\n{_follow_up_commands(arguments, job)}", err=True)
        raise typer.Exit(130) from None
    status = _read_final_status(config, info)
    is_known = status.exit_code is not None
    _exit_as_job(status, status.description if is_known else f"{status.status} ({info.message})")


def _exit_as_job(status: "JobStatus", description: str) -> None:
    """Print how a job has ended, and exit with its exit code."""
    from cluster.jobs import client

    typer.echo(f"job {status.job}: {description}", err=True)
    if code := client.exit_code(status.status, status.exit_code):
        raise typer.Exit(code)


def _read_final_status(config: Config, info: "JobInfo") -> "JobStatus":
    """The status of a finished job as `status` shows it: Ray reports a stopped job as failed."""
    from cluster.jobs import client, job_store

    record = None
    with suppress(StorageError):
        record = job_store.read_job(job_store.jobs_storage(config), info.job)
    (status,) = client.merge_statuses([info], [record] if record else [], is_reachable=True)
    return status


def _follow_up_commands(arguments: str, job: str) -> str:
    return (
        f"job {job} continues without this terminal:\n"
        f"  segfleet logs {arguments} {job}    follow the log again\n"
        f"  segfleet status {arguments}    all jobs of the run\n"
        f"  segfleet stop {arguments} {job}    stop it after its next checkpoint"
    )


def _list_jobs(config: Config) -> "tuple[list[JobStatus], ClusterError | None]":
    """The jobs of the run, and the error of the cluster if it did not respond."""
    from cluster.jobs import client, job_store

    records = job_store.list_jobs(job_store.jobs_storage(config))
    try:
        jobs = client.JobClient(config.cluster).list_jobs()
    except ClusterError as error:
        return client.merge_statuses((), records, is_reachable=False), error
    of_run = [info for info in jobs if info.run == config.run.name]
    return client.merge_statuses(of_run, records, is_reachable=True), None


def _select_job(config: Config, job: str | None) -> "JobStatus":
    """The named job, or the latest of the run."""
    statuses, error = _list_jobs(config)
    for status in reversed(statuses):
        if job in (None, status.job):
            return status
    name = f"no job {job}" if job else "no job"
    where = f" in its storage, and the cluster does not respond: {error}" if error else "."
    raise ClusterError(f"run {config.run.name!r} has {name}{where}")


if __name__ == "__main__":
    run_app(app)
