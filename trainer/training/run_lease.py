"""One command at a time trains a run: it holds a lease, a small file that it renews.

A lease expires if its process has ended, or if it has not been renewed for EXPIRY_S seconds; then
another command may take it over. The leases of a run are numbered, and each number can be created
only once, so of several commands exactly one takes over an expired lease.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import NotFoundError, StorageError, TrainingError
from contract.storage import Storage
from contract.temp_folders import process_exists
from contract.timestamps import utc_now

RENEWAL_S = 5.0
EXPIRY_S = 30.0
_FOLDER = "leases"


class Lease(BaseModel):
    """Who trains a run. All times are ISO 8601 in UTC."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    token: str
    """Random; identifies the command."""
    host: str
    """Name of its machine."""
    pid: int
    """Its process."""
    started: str
    """When it took the lease."""
    renewed: str
    """When it last renewed the lease."""


@contextmanager
def run_lease(storage: Storage, kind: str, name: str) -> Iterator[None]:
    """Hold the lease of a run or sweep for the duration of the block.

    Args:
        storage: The storage of storage.root. The lease is not in the folder of the run, so that a
            run that cannot start leaves no folder.
        kind: "run", "sweep" or "cross-validation".
        name: Its name.

    Raises:
        TrainingError: Another command holds the lease; the message names its host and process.
    """
    folder = f"{_FOLDER}/{kind}s/{name}"
    number, lease = _acquire(storage, folder, f"{kind} {name!r}")
    stopped = threading.Event()
    thread = threading.Thread(
        target=_renew,
        args=(storage, _key(folder, number), lease, stopped),
        name="run-lease",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        storage.delete(_key(folder, number))


def _acquire(storage: Storage, folder: str, label: str) -> tuple[int, Lease]:
    now = utc_now()
    own = Lease(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now,
        renewed=now,
    )
    while True:
        numbers = _numbers(storage, folder)
        latest = _key(folder, numbers[-1] if numbers else 0)
        holder = _read(storage, latest)
        if holder and not _is_expired(storage, latest, holder):
            raise TrainingError(
                f"{label} in {storage.url} is being trained by process {holder.pid} on "
                f"{holder.host} since {holder.started} (last heartbeat {holder.renewed}): wait for "
                f"it or stop it; if that process no longer exists, try again in {EXPIRY_S:.0f} s."
            )
        number = numbers[-1] + 1 if numbers else 1
        if storage.create(_key(folder, number), own.model_dump_json().encode()):
            for earlier in numbers:
                storage.delete(_key(folder, earlier))
            return number, own


def _is_expired(storage: Storage, key: str, holder: Lease) -> bool:
    """Whether the holder of a lease has ended, or has stopped renewing it."""
    if holder.host == socket.gethostname() and not process_exists(holder.pid):
        return True
    age = datetime.now(UTC) - datetime.fromisoformat(holder.renewed)
    if abs(age.total_seconds()) < EXPIRY_S:
        return False
    # The clock of the other machine may be wrong: a lease that is renewed meanwhile is held.
    time.sleep(2 * RENEWAL_S)
    return _read(storage, key) in (None, holder)


def _renew(storage: Storage, key: str, lease: Lease, stopped: threading.Event) -> None:
    """Renew the lease until the block ends. A store that fails for a while is tried again."""
    while not stopped.wait(RENEWAL_S):
        try:
            renewed = lease.model_copy(update={"renewed": utc_now()})
            storage.write(key, renewed.model_dump_json().encode())
        except StorageError:
            continue


def _numbers(storage: Storage, folder: str) -> list[int]:
    stems = (PurePosixPath(info.key).stem for info in storage.list_objects(folder))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def _read(storage: Storage, key: str) -> Lease | None:
    """The lease; None if it was released, or is not readable."""
    try:
        return Lease.model_validate_json(storage.read(key))
    except (NotFoundError, ValidationError):
        return None


def _key(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"
