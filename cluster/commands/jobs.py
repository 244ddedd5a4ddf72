"""Commands that start, list, follow and stop jobs."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract.cli.app import create_command_group, example_epilog, load_settings, write_text
from contract.cli.options import ConfigFile, Lenient, Overrides, Verbose
from contract.config import Config
from contract.errors import ClusterError, StorageError

if TYPE_CHECKING:
    from cluster.jobs.client import JobClient, JobInfo, JobStatus

app = create_command_group()

OverridesAndJob = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE|JOB",
        help="Settings that replace those of CONFIG, and the name of the job; default: the latest "
        "of the run.",
    ),
]


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
    arguments = follow_up_arguments(path, words or (), lenient)
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
        arguments = follow_up_arguments(path, overrides, lenient)
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
        f"follow it with `segfleet logs {follow_up_arguments(path, overrides, lenient)}`."
    )


def follow_up_arguments(path: Path, words: Sequence[str], lenient: bool) -> str:
    """CONFIG, how it is read, and the overrides that determine where the jobs of the run are."""
    sections = ("run.", "storage.", "cluster.")
    overrides = [word for word in words if _is_override(word) and word.startswith(sections)]
    return shlex.join([str(path), *overrides, *(["--lenient"] if lenient else [])])


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
