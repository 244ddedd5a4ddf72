"""Ray jobs: submits a segfleet command to a cluster, and follows, lists and stops jobs."""

import asyncio
import logging
import secrets
import shlex
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobSubmissionClient

from cluster.connection import (
    NO_RAY_ADDRESS,
    environment_variables,
    job_variables,
    jobs_address,
    ray_level,
)
from cluster.jobs import job_package
from cluster.jobs.job_package import JobPackage
from cluster.jobs.job_store import JobRecord
from cluster.ray_internals import server_ray_version
from contract.config import Cluster, Config
from contract.errors import ClusterError, first_line
from contract.temp_folders import folder_prefix

log = logging.getLogger(__name__)

# Ray's default is to kill a job 3 s after a stop; the supervisor first writes the log and record.
STOP_WAIT_S = 60
MAX_UNREACHABLE_S = 60.0
_RETRY_S = 1.0
_ENTRYPOINT = "cluster/jobs/supervisor.sh"
_METADATA = {"run", "command"}
_SDK = "ray.dashboard.modules"
_CONNECTION_ERRORS = (aiohttp.ClientError, RuntimeError, OSError, RayError)


@dataclass(frozen=True)
class JobInfo:
    """A segfleet job according to Ray."""

    job: str
    run: str
    command: str
    status: str
    started_at: str
    is_finished: bool
    exit_code: int | None
    message: str


@dataclass(frozen=True)
class JobStatus:
    """A job according to the cluster and the storage of the run."""

    job: str
    command: str
    status: str
    started_at: str
    exit_code: int | None
    is_active: bool
    """Whether the cluster reports it and it is not finished."""

    @property
    def description(self) -> str:
        """Its status, with the exit code if it is known: stopped (exit code 130)."""
        return (
            self.status if self.exit_code is None else f"{self.status} (exit code {self.exit_code})"
        )


class TokenError(ClusterError):
    """The cluster requires a token that this process does not have."""


class JobClient:
    """The Jobs API of one cluster; every connection failure is a ClusterError."""

    def __init__(self, cluster: Cluster) -> None:
        self.address = jobs_address(cluster)
        # Two modules of Ray set their own log level, and log every upload.
        for name in (f"{_SDK}.job.sdk", f"{_SDK}.dashboard_sdk"):
            logging.getLogger(name).setLevel(ray_level())
        with translate_errors(self.address), environment_variables(NO_RAY_ADDRESS):
            self._client = JobSubmissionClient(self.address)
        self.ray_version = server_ray_version(self._client) or "an unknown version"

    def submit(self, job: str, command: Sequence[str], folder: Path, run: str) -> None:
        """Upload a folder and run a segfleet command in it, under the supervisor."""
        words = ("sh", _ENTRYPOINT, job, job_package.SETTINGS, *command)
        variables = {**job_variables(), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
        with translate_errors(self.address):
            self._client.submit_job(
                entrypoint=shlex.join(words),
                submission_id=job,
                runtime_env={"working_dir": str(folder), "env_vars": variables},
                metadata={"run": run, "command": shlex.join(command)},
            )

    def list_jobs(self) -> list[JobInfo]:
        """The segfleet jobs of this cluster that Ray still reports."""
        with translate_errors(self.address):
            jobs = self._client.list_jobs()
        return [_job_info(details) for details in jobs if set(details.metadata or {}) >= _METADATA]

    def find(self, job: str) -> JobInfo | None:
        """One job; None if Ray does not report it."""
        return next((info for info in self.list_jobs() if info.job == job), None)

    def stop(self, job: str) -> None:
        """Stop a job at once."""
        with translate_errors(self.address):
            self._client.stop_job(job)

    def follow(self, job: str, write: Callable[[str], None]) -> JobInfo:
        """Write the log of a job until it is finished, and return the job.

        If the connection is lost, it is retried for a minute.
        """
        follower, lost_since = LogFollower(write), None
        while True:
            try:
                asyncio.run(follower.follow(self._client.tail_job_logs(job)))
                if (info := self.find(job)) and info.is_finished:
                    return info
                lost_since = None
            except (*_CONNECTION_ERRORS, ClusterError) as error:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > MAX_UNREACHABLE_S:
                    raise ClusterError(
                        f"{self.address} no longer responds ({error}); job {job} may still be "
                        "running: check it with `segfleet status`."
                    ) from error
            time.sleep(_RETRY_S)


class LogFollower:
    """Writes a log that is read from its start several times, each part of it once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._written = write, 0

    async def follow(self, chunks: AsyncIterator[str]) -> None:
        """Write the new part of a log that is given in pieces from its start."""
        position = 0
        async for chunk in chunks:
            new = chunk[max(self._written - position, 0) :]
            position += len(chunk)
            self._written = max(self._written, position)
            if new:
                self._write(new)


@contextmanager
def translate_errors(address: str) -> Iterator[None]:
    """Translate connection failures of a Jobs API into a ClusterError of one sentence."""
    try:
        yield
    except _CONNECTION_ERRORS as error:
        reason = first_line(error)
        if isinstance(error, AuthenticationError):
            raise TokenError(_token_message(address, reason)) from error
        # A cluster that responds with an error status is a RuntimeError with the reason in it.
        remedy = (
            "Check whether the cluster runs the same version of Ray, and the log of its dashboard."
            if isinstance(error, RuntimeError)
            else "Check whether a Ray cluster responds there, or set cluster.address or "
            "RAY_ADDRESS to another address."
        )
        raise ClusterError(
            f"the request to the Jobs API at {address} failed: {reason}. {remedy}"
        ) from error


def _token_message(address: str, reason: str) -> str:
    return (
        f"Ray at {address} requires a token that this command does not have ({reason}). Set "
        "RAY_AUTH_MODE=token and put the token into ~/.ray/auth_token or RAY_AUTH_TOKEN; if it is "
        "not your cluster, set cluster.address or RAY_ADDRESS to yours."
    )


@contextmanager
def package_job(config: Config) -> Iterator[JobPackage]:
    """The files of a job, in a folder that exists for the duration of the block."""
    with tempfile.TemporaryDirectory(prefix=folder_prefix("job")) as folder:
        yield job_package.build(Path(folder), config)


def create_job_name(run: str) -> str:
    """A unique name: the run, the time, and random digits."""
    return f"{run}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def exit_code(status: str, code: int | None) -> int:
    """The exit code of a job: that of its command, 1 if it is not known."""
    if status == "succeeded":
        return 0
    return code or 1


def merge_statuses(
    jobs: Sequence[JobInfo], records: Sequence[JobRecord], is_reachable: bool
) -> list[JobStatus]:
    """The status of every job, the oldest first, from what Ray reports and the storage contains.

    is_reachable: whether Ray responded; if it did, a running job that it does not report is lost.
    """
    reported = {info.job: info for info in jobs}
    statuses = [_merge(reported.pop(r.job, None), r, is_reachable) for r in records]
    statuses += [
        JobStatus(
            info.job,
            info.command,
            info.status,
            info.started_at,
            info.exit_code,
            is_active=not info.is_finished,
        )
        for info in reported.values()
    ]
    return sorted(statuses, key=lambda status: (status.started_at, status.job))


def _merge(info: JobInfo | None, record: JobRecord, is_reachable: bool) -> JobStatus:
    status, code = record.status, record.exit_code
    if status == "running":
        if info is not None:
            status, code = info.status, info.exit_code
        elif is_reachable:
            status = "lost"
        else:
            status = f"running at {record.last_seen}"
    is_active = info is not None and not info.is_finished
    return JobStatus(
        record.job, " ".join(record.command), status, record.started_at, code, is_active
    )


def _job_info(details: Any) -> JobInfo:
    started = datetime.fromtimestamp((details.start_time or 0) / 1000, UTC)
    return JobInfo(
        job=details.submission_id,
        run=details.metadata["run"],
        command=details.metadata["command"],
        status=details.status.value.lower(),
        started_at=started.isoformat(timespec="seconds"),
        is_finished=details.status.is_terminal(),
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip().partition("\n")[0],
    )
