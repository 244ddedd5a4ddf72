"""python -m cluster check|submit|status|logs|stop|up|down|upload."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract.cli.app import create_app, example_epilog, load_settings, run_app
from contract.cli.options import ConfigFile, Overrides, Verbose
from contract.cli.progress import progress_bar
from contract.config import Config
from contract.errors import ClusterError

if TYPE_CHECKING:
    from cluster.jobs.client import JobClient, JobStatus

app = create_app("The ground the work runs on: Ray clusters, jobs and nodes in the cloud.")

ClusterFile = Annotated[
    Path | None,
    typer.Option("--file", help="The cluster file to fill in; absent: ./ray_cluster.yaml."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Job = Annotated[
    str | None, typer.Argument(metavar="JOB", help="Name of the job; absent: the run's newest.")
]


@app.command(epilog=example_epilog("python -m cluster check configs/demo.toml train.num_workers=4"))
def check(
    path: ConfigFile,
    overrides: Overrides = None,
    cloud: Annotated[
        bool,
        typer.Option("--cloud", help="Judge the cluster that `up` would make, at its largest."),
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Judge the largest cluster that a cluster file can grow to."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Say whether the cluster can hold training, sweep and service, and if not, why.

    Asks the cluster that CONFIG or RAY_ADDRESS names; without one, judges this machine.
    """
    from cluster import capacity_check
    from cluster.aws import launcher
    from cluster.connection import has_address

    config, first = load_settings(path, overrides), None
    if cloud:
        tree = launcher.read_cluster_file(file or launcher.CLUSTER_FILE)
        planned = launcher.fill_cluster_file(tree, config.cluster.cloud, launcher.PLACEHOLDER)
        nodes, where = capacity_check.nodes_of_tree(planned), "the cluster of [cluster.cloud]"
        first = capacity_check.nodes_of_tree(planned, "min_workers")
    elif file:
        nodes, where = capacity_check.nodes_of_file(file), str(file)
        first = capacity_check.nodes_of_file(file, "min_workers")
    elif has_address(config.cluster):
        nodes, where = capacity_check.nodes_of_cluster(config.cluster), "the cluster"
    else:
        nodes, where = capacity_check.nodes_of_machine(config.cluster), "a private cluster here"
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    typer.echo(f"{where}: nodes {len(nodes)}, CPUs {cpus:g}, GPUs {gpus:g}")
    findings = capacity_check.check_capacity(config, nodes, first)
    for finding in findings:
        typer.echo(f"{finding.purpose:9} {'no ' if finding.errors else 'yes'} {finding.text}")
        for reason in finding.errors:
            typer.echo(f"{'':13} {reason}")
    if any(finding.errors for finding in findings):
        raise typer.Exit(1)


@app.command(epilog=example_epilog("python -m cluster submit configs/cloud.toml -- trainer train"))
def submit(
    path: ConfigFile,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND",
            help="One of our commands, which gets CONFIG by itself: trainer train train.epochs=3.",
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
    shared: Annotated[
        bool, typer.Option("--shared", help="Every node has the folders that CONFIG names.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run one of our commands as a job of a Ray cluster, and follow what it prints.

    The job continues when this machine is switched off. Ctrl-C ends the following, not the job.
    """
    from cluster.jobs import client, job_package

    config, command = job_package.parse_job_command(
        load_settings(path, None), words or (), str(path)
    )
    job_package.check_folders(config, shared)
    api, name = client.JobClient(config.cluster), client.create_job_name(config.run.name)
    with client.package_job(config) as cargo:
        typer.echo(
            f"sends {cargo.files} files, {cargo.size / 1e6:.1f} MB: our code and the settings "
            f"(Ray's limit is {job_package.LIMIT_BYTES / 2**20:.0f} MB; data stay in the storage)",
            err=True,
        )
        api.submit(name, command, cargo.folder, config.run.name)
    typer.echo(f"job {name} on {api.address}: {' '.join(command)}", err=True)
    if detach:
        typer.echo(_how_to_go_on(str(path), name), err=True)
        return
    _follow(api, name, str(path))


@app.command(epilog=example_epilog("python -m cluster status configs/cloud.toml"))
def status(path: ConfigFile, verbose: Verbose = False) -> None:
    """List the jobs of a run, those that have ended too.

    Where no cluster answers, the storage of the run is asked alone. Where one answers and does
    not let us in, the exit code is 1.
    """
    config = load_settings(path, None)
    from cluster.jobs.client import TokenError

    lines, trouble = _jobs(config)
    for line in lines:
        code = "" if line.exit_code is None else f" (exit code {line.exit_code})"
        typer.echo(f"{line.started_at}  {line.job}  {line.status}{code}  {line.command}")
    if isinstance(trouble, TokenError):
        raise trouble
    if not lines:
        typer.echo(f"run {config.run.name} has no jobs yet.")
    if trouble:
        typer.echo(f"shown from the storage alone: {trouble}", err=True)


@app.command(epilog=example_epilog("python -m cluster logs configs/cloud.toml"))
def logs(path: ConfigFile, job: Job = None, verbose: Verbose = False) -> None:
    """Print what a job has printed, and follow it while it runs.

    Of a job that has ended this needs no cluster. Ends with the job's exit code, and with 1 where
    the job was lost or nothing tells how it ended.
    """
    from cluster.jobs import client, job_store

    config = load_settings(path, None)
    line = _chosen(config, job)
    if line.live:
        _follow(client.JobClient(config.cluster), line.job, str(path))
        return
    sys.stdout.buffer.write(job_store.read_log(job_store.jobs_storage(config), line.job))
    typer.echo(f"job {line.job}: {line.status}", err=True)
    if code := client.exit_code(line.status, line.exit_code):
        raise typer.Exit(code)


@app.command(epilog=example_epilog("python -m cluster stop configs/cloud.toml"))
def stop(
    path: ConfigFile,
    job: Job = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=0, help="Seconds the job may take to reach its next checkpoint."
        ),
    ] = 900.0,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for a checkpoint.")] = False,
    verbose: Verbose = False,
) -> None:
    """Stop a job once it has written its next checkpoint; the same command continues from there."""
    from cluster.jobs import client, job_store

    config = load_settings(path, None)
    line = _chosen(config, job)
    kept = job_store.read_job(job_store.jobs_storage(config), line.job)
    if not line.live and not line.status.startswith("running"):
        raise ClusterError(f"job {line.job} does not run: it is {line.status}.")
    if now or kept is None:
        client.JobClient(config.cluster).stop(line.job)
        typer.echo(f"job {line.job} is told to stop at once.")
        return
    job_store.request_stop(job_store.jobs_storage(config), line.job, timeout)
    typer.echo(
        f"job {line.job} is asked to stop after its next checkpoint, within {timeout:.0f} s; "
        f"follow it with `python -m cluster logs {path}`."
    )


@app.command(
    epilog=example_epilog("python -m cluster up configs/cloud.toml cluster.cloud.max_workers=2")
)
def up(
    path: ConfigFile,
    overrides: Overrides = None,
    file: ClusterFile = None,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be created and its price only.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Start a cluster on AWS as [cluster.cloud] of CONFIG says, after showing its price."""
    from cluster.aws import instances, launcher, resources

    config = load_settings(path, overrides)
    cloud, source = config.cluster.cloud, file or launcher.CLUSTER_FILE
    launcher.check_ready(config, source)
    price, note = _spot_price(config)
    plan = launcher.create_plan(config, resources.find_buckets(config), price)
    table = instances.load_table()
    for line in plan.lines:
        typer.echo(line)
    typer.echo(
        f"price           {plan.idle_usd:.2f} USD an hour without work, at most "
        f"{plan.max_usd:.2f} with all workers on demand\n"
        f"                (list of {table.date} for {table.region}, before tax and traffic; look "
        f"up yours: {table.look_up})"
    )
    if note:
        typer.echo(f"note: {note}", err=True)
    if dry_run:
        return
    if not yes:
        typer.confirm("Make this and start paying for it?", abort=True)
    written = launcher.up(config, source)
    typer.echo(
        f"the cluster {launcher.cluster_name(cloud)} is up. In a second terminal open the tunnel to it:\n"
        f"  ray dashboard {written}\n"
        "then, here:\n"
        "  export RAY_AUTH_MODE=token\n"
        f"  python -m cluster submit {path} -- trainer train\n"
        f"and in the end: python -m cluster down {path}"
    )


@app.command(epilog=example_epilog("python -m cluster down configs/cloud.toml"))
def down(
    path: ConfigFile, overrides: Overrides = None, yes: Yes = False, verbose: Verbose = False
) -> None:
    """End every node of the cluster on AWS, and make sure that none is left."""
    from cluster.aws import launcher, resources

    config = load_settings(path, overrides)
    cloud = config.cluster.cloud
    name = launcher.cluster_name(cloud)
    there = resources.list_instances(name, cloud.region)
    typer.echo(f"cluster {name} in {cloud.region} has {len(there)} nodes")
    if there and not yes:
        typer.confirm("End them, and every job on them?", abort=True)
    launcher.down(config)
    typer.echo(
        f"no node of cluster {name} is left. Bucket, roles and security group stay; they "
        "cost nothing but what the bucket holds."
    )


@app.command(epilog=example_epilog("python -m cluster upload ~/slices s3://my-bucket/slices"))
def upload(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of your slices.")],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="Where to: an s3:// address or a folder.")
    ],
    verbose: Verbose = False,
) -> None:
    """Copy a folder into storage, but for the files that are there already and have not changed."""
    from cluster import upload as uploading
    from contract.storage import open_storage

    storage = open_storage(destination)
    files = uploading.find_changed_files(folder, storage)
    with progress_bar("uploading", len(files)) as bar:
        uploading.upload_files(folder, files, storage, lambda name: bar.update(1, name))
    typer.echo(f"{len(files)} files sent to {storage.url}")


def _spot_price(config: Config) -> tuple[float | None, str]:
    """The present price of a spot worker, or None and a sentence on why it is not known."""
    from cluster.aws import resources

    cloud = config.cluster.cloud
    if not cloud.spot:
        return None, ""
    try:
        return resources.find_spot_price(cloud.worker_type, cloud.region), ""
    except ClusterError as error:
        return None, f"the spot price is not known: {error}"


def _follow(api: "JobClient", job: str, path: str) -> None:
    """Print a job's log to its end; end with its exit code."""
    from cluster.jobs import client

    def write(text: str) -> None:
        typer.echo(text, nl=False)

    try:
        seen = api.follow(job, write)
    except KeyboardInterrupt:
        typer.echo(f"\n{_how_to_go_on(path, job)}", err=True)
        raise typer.Exit(130) from None
    code = client.exit_code(seen.status, seen.exit_code)
    why = f"exit code {code}" if seen.exit_code is not None else seen.message
    typer.echo(f"job {job}: {seen.status} ({why})", err=True)
    if code:
        raise typer.Exit(code)


def _how_to_go_on(path: str, job: str) -> str:
    return (
        f"job {job} continues without this terminal:\n"
        f"  python -m cluster logs {path} {job}    follow it again\n"
        f"  python -m cluster status {path}    all jobs of the run\n"
        f"  python -m cluster stop {path} {job}    stop it after its next checkpoint"
    )


def _jobs(config: Config) -> "tuple[list[JobStatus], ClusterError | None]":
    """The run's jobs, and why the cluster could not be asked, if so."""
    from cluster.jobs import client, job_store

    kept, trouble, seen = job_store.list_jobs(job_store.jobs_storage(config)), None, None
    try:
        seen = [
            one
            for one in client.JobClient(config.cluster).list_jobs()
            if one.run == config.run.name
        ]
    except ClusterError as error:
        trouble = error
    return client.merge_statuses(seen or (), kept, reachable=seen is not None), trouble


def _chosen(config: Config, job: str | None) -> "JobStatus":
    """The job a user named, or the newest of the run."""
    lines, trouble = _jobs(config)
    for line in reversed(lines):
        if job in (None, line.job):
            return line
    named = f"no job {job}" if job else "no job"
    where = f" in its storage, and the cluster does not tell: {trouble}" if trouble else "."
    raise ClusterError(f"run {config.run.name!r} has {named}{where}")


if __name__ == "__main__":
    run_app(app)
