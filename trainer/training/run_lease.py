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
from contract.timestamps import utc_now

RENEWAL_S = 5.0
EXPIRY_S = 30.0
_FOLDER = "lease"


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
def run_lease(storage: Storage, name: str) -> Iterator[None]:
    """Hold the lease of a run or sweep for the duration of the block.

    Args:
        storage: The storage of the run or sweep.
        name: How the message names it: "run 'demo'".

    Raises:
        TrainingError: Another command holds the lease; the message names its host and process.
    """
    leases = storage.child(_FOLDER)
    number, lease = _acquire(leases, name)
    stopped = threading.Event()
    thread = threading.Thread(
        target=_renew, args=(leases, number, lease, stopped), name="run-lease", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        leases.delete(_key(number))


def _acquire(leases: Storage, name: str) -> tuple[int, Lease]:
    now = utc_now()
    own = Lease(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now,
        renewed=now,
    )
    while True:
        numbers = _numbers(leases)
        holder = _read(leases, numbers[-1]) if numbers else None
        if holder and not _is_expired(leases, numbers[-1], holder):
            raise TrainingError(
                f"{name} in {leases.url.removesuffix(f'/{_FOLDER}')} is being trained by process "
                f"{holder.pid} on {holder.host} since {holder.started} (last heartbeat "
                f"{holder.renewed}): wait for it or stop it; if that process no longer exists, try "
                f"again in {EXPIRY_S:.0f} s."
            )
        number = numbers[-1] + 1 if numbers else 1
        if leases.create(_key(number), own.model_dump_json().encode()):
            for earlier in numbers:
                leases.delete(_key(earlier))
            return number, own


def _is_expired(leases: Storage, number: int, holder: Lease) -> bool:
    """Whether the holder of a lease has ended, or has stopped to renew it."""
    if holder.host == socket.gethostname() and not _process_exists(holder.pid):
        return True
    age = datetime.now(UTC) - datetime.fromisoformat(holder.renewed)
    if abs(age.total_seconds()) < EXPIRY_S:
        return False
    # The clock of the other machine may be wrong: a lease that is renewed meanwhile is held.
    time.sleep(2 * RENEWAL_S)
    return _read(leases, number) in (None, holder)


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _renew(leases: Storage, number: int, lease: Lease, stopped: threading.Event) -> None:
    """Renew the lease until the block ends. A store that fails for a while is tried again."""
    while not stopped.wait(RENEWAL_S):
        try:
            renewed = lease.model_copy(update={"renewed": utc_now()})
            leases.write(_key(number), renewed.model_dump_json().encode())
        except StorageError:
            continue


def _numbers(leases: Storage) -> list[int]:
    stems = (PurePosixPath(info.key).stem for info in leases.list_objects())
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def _read(leases: Storage, number: int) -> Lease | None:
    """The lease of a number; None if it was released, or is not readable."""
    try:
        return Lease.model_validate_json(leases.read(_key(number)))
    except (NotFoundError, ValidationError):
        return None


def _key(number: int) -> str:
    return f"{number:06d}.json"
