"""The records and logs of jobs in the storage of their run, where they outlive the cluster.

<storage.root>/runs/<run.name>/jobs/<job>/ contains job.json (status and exit code), log/00000.txt,
log/00001.txt … (the log in parts) and, if a stop is requested, stop.json.
"""

from threading import Lock
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.config import Config
from contract.errors import StorageError
from contract.state_files import read_json
from contract.storage import Storage, open_storage
from contract.timestamps import utc_now

PART_BYTES = 2**20
_RECORD, _STOP, _LOG = "job.json", "stop.json", "log"

Status = Literal["running", "succeeded", "failed", "stopped"]


class JobRecord(BaseModel):
    """A job; times are ISO 8601 in UTC."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str
    command: tuple[str, ...]
    status: Status
    started_at: str
    last_seen: str
    """When the supervisor last wrote the record."""
    exit_code: int | None = None


class StopRequest(BaseModel):
    """A request to stop a job after its next checkpoint."""

    model_config = ConfigDict(frozen=True)

    requested_at: str
    timeout_s: float
    """Seconds to wait for that checkpoint."""


def jobs_storage(config: Config) -> Storage:
    """The storage of the jobs of a run."""
    return open_storage(config.storage.root).child(f"runs/{config.run.name}/jobs")


def write_job(jobs: Storage, record: JobRecord) -> None:
    """Write the record of a job, replacing the earlier one."""
    jobs.write(f"{record.job}/{_RECORD}", record.model_dump_json(indent=2).encode())


def list_jobs(jobs: Storage) -> list[JobRecord]:
    """The records of all jobs, the oldest first; unreadable ones are omitted."""
    keys = [info.key for info in jobs.list_objects() if info.key.endswith(f"/{_RECORD}")]
    records = [record for key in keys if (record := _read(jobs, key))]
    return sorted(records, key=lambda record: (record.started_at, record.job))


def read_job(jobs: Storage, job: str) -> JobRecord | None:
    """The record of a job; None if there is none."""
    key = f"{job}/{_RECORD}"
    return _read(jobs, key) if jobs.exists(key) else None


def _read(jobs: Storage, key: str) -> JobRecord | None:
    try:
        return JobRecord.model_validate_json(jobs.read(key))
    except (ValidationError, StorageError):
        return None


def request_stop(jobs: Storage, job: str, timeout_s: float) -> None:
    """Request a job to stop after its next checkpoint, or after timeout_s seconds."""
    request = StopRequest(requested_at=utc_now(), timeout_s=timeout_s)
    jobs.write(f"{job}/{_STOP}", request.model_dump_json().encode())


def read_stop_request(jobs: Storage, job: str) -> StopRequest | None:
    """The request to stop a job, if there is one."""
    key = f"{job}/{_STOP}"
    if not jobs.exists(key):
        return None
    return read_json(jobs, key, StopRequest, "request the stop again")


def read_log(jobs: Storage, job: str) -> bytes:
    """The log of a job."""
    return b"".join(jobs.read(info.key) for info in jobs.list_objects(f"{job}/{_LOG}"))


class LogUploader:
    """Uploads a growing log in parts, so that repeated uploads stay small.

    One thread may add while another uploads.
    """

    def __init__(self, jobs: Storage, job: str) -> None:
        self._jobs, self._prefix = jobs, f"{job}/{_LOG}"
        self._lock = Lock()
        self._pending = bytearray()
        self._part = self._uploaded = 0

    def add(self, text: bytes) -> None:
        """Append to the log; upload writes it."""
        with self._lock:
            self._pending += text

    def upload(self) -> None:
        """Write what is not uploaded yet; a full part is written once."""
        while len(self._pending) > self._uploaded:
            with self._lock:
                part = bytes(self._pending[:PART_BYTES])
            self._jobs.write(f"{self._prefix}/{self._part:05d}.txt", part)
            self._uploaded = len(part)
            if len(part) < PART_BYTES:
                return
            with self._lock:
                del self._pending[:PART_BYTES]
            self._uploaded, self._part = 0, self._part + 1
