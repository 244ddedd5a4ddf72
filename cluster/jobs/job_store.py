"""What is kept of a job in the storage of its run, where it outlives the cluster.

<storage.root>/runs/<run.name>/jobs/<job>/ holds job.json (state and exit code), log/00000.txt,
log/00001.txt … (what the job printed, in parts) and, once asked for, stop.json.
"""

import json
from datetime import UTC, datetime
from threading import Lock
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.config import Config
from contract.errors import StorageError
from contract.storage import Storage, open_storage

PART_BYTES = 2**20
_RECORD, _STOP, _LOG = "job.json", "stop.json", "log"

Status = Literal["running", "succeeded", "failed", "stopped"]


class JobRecord(BaseModel):
    """A job as last seen; times are ISO, UTC."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str
    command: tuple[str, ...]
    status: Status
    started_at: str
    last_seen: str
    """When the job last said that it was there."""
    exit_code: int | None = None


class StopRequest(BaseModel):
    """The wish that a job ends after its next checkpoint."""

    model_config = ConfigDict(frozen=True)

    requested_at: str
    timeout_s: float
    """Seconds it may take to reach that checkpoint."""


def utc_timestamp() -> str:
    """The time of records."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def jobs_storage(config: Config) -> Storage:
    """Where the jobs of a run are kept."""
    return open_storage(config.storage.root).child(f"runs/{config.run.name}/jobs")


def write_job(jobs: Storage, record: JobRecord) -> None:
    """Keep a job's state, replacing the earlier one."""
    jobs.write(f"{record.job}/{_RECORD}", record.model_dump_json(indent=2).encode())


def list_jobs(jobs: Storage) -> list[JobRecord]:
    """Every job kept, the oldest first; one that cannot be read is left out."""
    keys = [entry.key for entry in jobs.list_objects() if entry.key.endswith(f"/{_RECORD}")]
    records = [record for key in keys if (record := _read(jobs, key))]
    return sorted(records, key=lambda record: (record.started_at, record.job))


def read_job(jobs: Storage, job: str) -> JobRecord | None:
    """One job; None where nothing is kept of it."""
    key = f"{job}/{_RECORD}"
    return _read(jobs, key) if jobs.exists(key) else None


def _read(jobs: Storage, key: str) -> JobRecord | None:
    try:
        return JobRecord.model_validate_json(jobs.read(key))
    except (ValidationError, StorageError):
        return None


def request_stop(jobs: Storage, job: str, within_s: float) -> None:
    """Leave word for a job to end after its next checkpoint, or after so many seconds."""
    request = StopRequest(requested_at=utc_timestamp(), timeout_s=within_s)
    jobs.write(f"{job}/{_STOP}", request.model_dump_json().encode())


def read_stop_request(jobs: Storage, job: str) -> StopRequest | None:
    """The request to stop, if there is one."""
    key = f"{job}/{_STOP}"
    return StopRequest.model_validate(json.loads(jobs.read(key))) if jobs.exists(key) else None


def read_log(jobs: Storage, job: str) -> bytes:
    """All that is kept of what a job printed."""
    return b"".join(jobs.read(entry.key) for entry in jobs.list_objects(f"{job}/{_LOG}"))


class LogUploader:
    """Keeps a growing log in parts, so that keeping it again and again stays cheap.

    One thread may add while another keeps.
    """

    def __init__(self, jobs: Storage, job: str) -> None:
        self._jobs, self._prefix = jobs, f"{job}/{_LOG}"
        self._lock = Lock()
        self._pending = bytearray()
        self._part = self._kept = 0

    def add(self, text: bytes) -> None:
        """Append what was printed; keep writes it."""
        with self._lock:
            self._pending += text

    def upload(self) -> None:
        """Write what is not written yet; a full part is never written again."""
        while len(self._pending) > self._kept:
            with self._lock:
                part = bytes(self._pending[:PART_BYTES])
            self._jobs.write(f"{self._prefix}/{self._part:05d}.txt", part)
            self._kept = len(part)
            if len(part) < PART_BYTES:
                return
            with self._lock:
                del self._pending[:PART_BYTES]
            self._kept, self._part = 0, self._part + 1
