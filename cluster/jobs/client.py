"""Ray jobs: sending one of our commands to a cluster, following, listing and stopping it."""

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
from contract.config import Cluster, Config
from contract.errors import ClusterError

log = logging.getLogger(__name__)

# Ray kills a job 3 s after it was told to stop; ours writes its log and state first.
STOP_WAIT_S = 60
LOST_FOR_S = 60.0
_RETRY_S = 1.0
_SDK = "ray.dashboard.modules"
_TROUBLE = (aiohttp.ClientError, RuntimeError, OSError, RayError)


@dataclass(frozen=True)
class JobInfo:
    """A job of ours as Ray knows it."""

    job: str
    run: str
    command: str
    status: str
    started_at: str
    ended: bool
    exit_code: int | None
    message: str


@dataclass(frozen=True)
class JobStatus:
    """A job as the cluster and the run's storage together know it."""

    job: str
    command: str
    status: str
    started_at: str
    exit_code: int | None
    live: bool
    """Whether the cluster knows it and it has not ended."""


class TokenError(ClusterError):
    """A cluster answers and asks for a token that this process does not have."""


class JobClient:
    """The Jobs API of one cluster; every failure to talk to it is a ClusterError."""

    def __init__(self, cluster: Cluster) -> None:
        self.address = jobs_address(cluster)
        # Two of Ray's modules set their own level, and tell of every upload.
        for name in (f"{_SDK}.job.sdk", f"{_SDK}.dashboard_sdk"):
            logging.getLogger(name).setLevel(ray_level())
        with translate_errors(self.address), environment_variables(NO_RAY_ADDRESS):
            self._client = JobSubmissionClient(self.address)
        self.ray_version = self._client._server_ray_version or "an unknown version"

    def submit(self, job: str, words: Sequence[str], folder: Path, run: str) -> None:
        """Send a folder and start a command of ours in it, under the supervisor."""
        words = ("python", "-m", "cluster.jobs.supervisor", job, job_package.SETTINGS, *words)
        variables = {**job_variables(), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
        with translate_errors(self.address):
            self._client.submit_job(
                entrypoint=shlex.join(words),
                submission_id=job,
                runtime_env={"working_dir": str(folder), "env_vars": variables},
                metadata={"run": run},
            )

    def list_jobs(self) -> list[JobInfo]:
        """Every job of ours sent to this cluster that Ray remembers; it may run others too."""
        with translate_errors(self.address):
            known = self._client.list_jobs()
        return [_seen(details) for details in known if "run" in (details.metadata or {})]

    def find(self, job: str) -> JobInfo | None:
        """One job; None where Ray does not know it."""
        return next((seen for seen in self.list_jobs() if seen.job == job), None)

    def stop(self, job: str) -> None:
        """Stop a job at once."""
        with translate_errors(self.address):
            self._client.stop_job(job)

    def follow(self, job: str, write: Callable[[str], None]) -> JobInfo:
        """Write what a job prints until it has ended; what became of it.

        A lost connection is taken up again for a minute.
        """
        tail, lost_since = LogFollower(write), None
        while True:
            try:
                asyncio.run(tail.follow(self._client.tail_job_logs(job)))
                if (seen := self.find(job)) and seen.ended:
                    return seen
                lost_since = None
            except (*_TROUBLE, ClusterError) as error:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > LOST_FOR_S:
                    raise ClusterError(
                        f"{self.address} answers no more ({error}); job {job} may well continue: "
                        "look again with `python -m cluster status`."
                    ) from error
            time.sleep(_RETRY_S)


class LogFollower:
    """Writes a log that is read from its beginning several times, every part of it once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._written = write, 0

    async def follow(self, texts: AsyncIterator[str]) -> None:
        """Write what is new in a log given piece by piece from its beginning."""
        position = 0
        async for text in texts:
            new = text[max(self._written - position, 0) :]
            position += len(text)
            self._written = max(self._written, position)
            if new:
                self._write(new)


@contextmanager
def translate_errors(address: str) -> Iterator[None]:
    """Turn trouble with a Jobs API into a ClusterError of one sentence."""
    try:
        yield
    except _TROUBLE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if isinstance(error, AuthenticationError):
            raise TokenError(_token_wanted(address, reason)) from error
        # What has answered and is a cluster raises a RuntimeError with the reason in it.
        remedy = (
            "Does the cluster run the Ray of this machine? Its dashboard's log tells more."
            if isinstance(error, RuntimeError)
            else "Does a Ray cluster answer there? Name another address in cluster.address or "
            "RAY_ADDRESS."
        )
        raise ClusterError(f"the Jobs API at {address} refused: {reason}. {remedy}") from error


def _token_wanted(address: str, reason: str) -> str:
    return (
        f"Ray at {address} asks for a token that this command does not have ({reason}). Name "
        "yours in cluster.address or RAY_ADDRESS, or, if it is this one, set RAY_AUTH_MODE=token "
        "and put its token into ~/.ray/auth_token or RAY_AUTH_TOKEN."
    )


@contextmanager
def package_job(config: Config) -> Iterator[JobPackage]:
    """What a job takes along, in a folder that is there for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="segfleet-job-") as folder:
        yield job_package.build(Path(folder), config)


def create_job_name(run: str) -> str:
    """A name no other job has: the run, the time, and a few digits."""
    return f"{run}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def exit_code(state: str, code: int | None) -> int:
    """The exit code of a job: its command's, 1 where that is not known."""
    if state == "succeeded":
        return 0
    return code or 1


def merge_statuses(
    seen: Sequence[JobInfo], kept: Sequence[JobRecord], reachable: bool
) -> list[JobStatus]:
    """One line a job, the oldest first, from what Ray and the storage know.

    reachable: whether Ray could be asked; a job that should run and that it does not know is
    lost.
    """
    live = {one.job: one for one in seen}
    lines = [_merge(live.pop(one.job, None), one, reachable) for one in kept]
    lines += [
        JobStatus(one.job, one.command, one.status, one.started_at, one.exit_code, not one.ended)
        for one in live.values()
    ]
    return sorted(lines, key=lambda line: (line.started_at, line.job))


def _merge(seen: JobInfo | None, kept: JobRecord, reachable: bool) -> JobStatus:
    state, code = kept.status, kept.exit_code
    running = state == "running"
    if running and seen is None:
        state = "lost" if reachable else f"running when last seen ({kept.last_seen})"
    if running and seen is not None:
        state, code = seen.status, seen.exit_code
    live = seen is not None and not seen.ended
    return JobStatus(kept.job, " ".join(kept.command), state, kept.started_at, code, live)


def _seen(details: Any) -> JobInfo:
    words = shlex.split(details.entrypoint)
    began = datetime.fromtimestamp((details.start_time or 0) / 1000, UTC)
    return JobInfo(
        job=details.submission_id,
        run=details.metadata["run"],
        command=" ".join(words[5:]),
        status=details.status.value.lower(),
        started_at=began.isoformat(timespec="seconds"),
        ended=details.status.is_terminal(),
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip().partition("\n")[0],
    )
