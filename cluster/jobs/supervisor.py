"""The process on the head node that runs a submitted command.

Ray loses a job's log and status with its head node, and stops a job within seconds. The supervisor
writes both to the run's storage while the command runs, and on request stops the command after its
next checkpoint. It is started as `python -m cluster.jobs.supervisor`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import IO, TypeVar

from cluster.jobs import job_store
from cluster.jobs.job_store import JobRecord, LogUploader, StopRequest
from contract.config import Config
from contract.config.data import MAX_FOLDS
from contract.config.loader import load_config
from contract.errors import StorageError
from contract.storage import Storage, open_storage
from contract.timestamps import utc_now

T = TypeVar("T")

COMMANDS_WITH_CHECKPOINTS = (
    ("trainer", "train"),
    ("trainer", "cross-validate"),
    ("tuning", "sweep"),
)
"""The commands that write checkpoints and resume from them."""
UPLOAD_INTERVAL_S = 10.0
POLL_INTERVAL_S = 3.0
KILL_TIMEOUT_S = 60.0
_LOOP_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Intervals:
    """Intervals and timeouts in seconds, shorter in tests."""

    upload_s: float = UPLOAD_INTERVAL_S
    poll_s: float = POLL_INTERVAL_S
    kill_s: float = KILL_TIMEOUT_S


def should_stop(
    request: StopRequest, elapsed_s: float, has_checkpoints: bool, is_checkpoint_new: bool
) -> bool:
    """Whether a command with a stop request is to be stopped now.

    elapsed_s: seconds since the request was read; has_checkpoints: the command writes checkpoints;
    is_checkpoint_new: it has written one since the request.
    """
    return not has_checkpoints or is_checkpoint_new or elapsed_s >= request.timeout_s


def list_checkpoint_ids(root: Storage, run: str, command: Sequence[str]) -> set[str]:
    """An id for every complete checkpoint of a command.

    For a training it is the key of the object that is written last; for a sweep the key and time of
    a trial's record, which is written again after each epoch with a complete checkpoint.
    """
    match tuple(command[:2]):
        case ("trainer", "train"):
            return _training_checkpoints(root, run)
        case ("trainer", "cross-validate"):
            folds = (f"{run}-fold{number}" for number in range(1, MAX_FOLDS + 1))
            return set().union(*(_training_checkpoints(root, fold) for fold in folds))
        case ("tuning", "sweep"):
            trials = root.list_objects(f"sweeps/{run}/trials")
            return {f"{info.key} {info.modified}" for info in trials}
        case _:
            return set()


def _training_checkpoints(root: Storage, run: str) -> set[str]:
    keys = (info.key for info in root.list_objects(f"runs/{run}/checkpoints"))
    return {key for key in keys if key.endswith("/checkpoint.json")}


class Supervisor:
    """Runs one command, uploads its log and record, and stops it on request."""

    def __init__(
        self, config: Config, job: str, command: Sequence[str], intervals: Intervals | None = None
    ) -> None:
        """command: package, subcommand and arguments, as after `python -m`."""
        self._root = open_storage(config.storage.root)
        self._name, self._job, self._command = config.run.name, job, tuple(command)
        self._jobs, self._intervals = job_store.jobs_storage(config), intervals or Intervals()
        self._log = LogUploader(self._jobs, job)
        self._started_at, self._is_reachable = utc_now(), True
        self._is_stopping = self._is_stopped = False

    def run(self) -> int:
        """Run the command; returns its exit code, 128 plus the signal's number if it was killed."""
        child = subprocess.Popen(
            [sys.executable, "-m", *self._command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert child.stdout
        reader = Thread(target=self._forward_output, args=(child.stdout,), daemon=True)
        reader.start()
        self._monitor(child)
        reader.join(timeout=self._intervals.kill_s)
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        self._upload(code)
        return code

    def _monitor(self, child: "subprocess.Popen[bytes]") -> None:
        uploaded_at, polled_at, parent = 0.0, 0.0, os.getppid()
        condition: Callable[[], bool] | None = None
        while child.poll() is None:
            now = time.monotonic()
            if now - uploaded_at >= self._intervals.upload_s:
                self._upload(None)
                uploaded_at = now
            if os.getppid() != parent and not self._is_stopping:
                # Ray's processes were killed and could not stop their jobs.
                self._interrupt(child, "Ray is no longer running on this node")
            if now - polled_at >= self._intervals.poll_s and not self._is_stopping:
                condition = condition or self._stop_condition()
                polled_at = now
                if condition and condition():
                    self._is_stopped = True
                    self._interrupt(child, "stopping")
            time.sleep(_LOOP_INTERVAL_S)

    def _stop_condition(self) -> Callable[[], bool] | None:
        """None until a stop is requested; then returns True when the command is to be stopped."""
        request = self._try(lambda: job_store.read_stop_request(self._jobs, self._job))
        if request is None:
            return None
        requested_at, before = time.monotonic(), self._checkpoints()
        has_checkpoints = self._command[:2] in COMMANDS_WITH_CHECKPOINTS
        if has_checkpoints:
            self._print(f"stop requested: waiting {request.timeout_s:.0f} s for a checkpoint")

        def is_due() -> bool:
            is_new = bool(self._checkpoints() - before)
            return should_stop(request, time.monotonic() - requested_at, has_checkpoints, is_new)

        return is_due

    def _checkpoints(self) -> set[str]:
        ids = self._try(lambda: list_checkpoint_ids(self._root, self._name, self._command))
        return ids or set()

    def _interrupt(self, child: "subprocess.Popen[bytes]", reason: str) -> None:
        """Send the command SIGINT, and SIGKILL if it does not end in time."""
        self._is_stopping = True
        self._print(f"{reason}: interrupting {' '.join(self._command)}")
        child.send_signal(signal.SIGINT)
        Thread(target=self._kill_after_timeout, args=(child,), daemon=True).start()

    def _kill_after_timeout(self, child: "subprocess.Popen[bytes]") -> None:
        try:
            child.wait(self._intervals.kill_s)
        except subprocess.TimeoutExpired:
            child.kill()

    def handle_sigterm(self, *_: object) -> None:
        """Ray stops the job; it sends the same signal to the command."""
        self._is_stopping = self._is_stopped = True

    def _forward_output(self, output: IO[bytes]) -> None:
        """Print the output of the command, for Ray's log, and add it to the log."""
        while data := os.read(output.fileno(), 2**16):
            self._write(data)

    def _print(self, line: str) -> None:
        self._write(f"{line}\n".encode())

    def _write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self._log.add(data)

    def _upload(self, exit_code: int | None) -> None:
        record = JobRecord(
            job=self._job,
            command=self._command,
            status=_status(exit_code, self._is_stopped),
            started_at=self._started_at,
            last_seen=utc_now(),
            exit_code=exit_code,
        )

        def write() -> None:
            self._log.upload()
            job_store.write_job(self._jobs, record)

        self._try(write)

    def _try(self, action: Callable[[], T]) -> T | None:
        """The result, or None if the storage fails: the command continues."""
        try:
            result = action()
        except StorageError as error:
            if self._is_reachable:
                self._print(f"the job's log cannot be uploaded now: {error}")
            self._is_reachable = False
            return None
        self._is_reachable = True
        return result


def _status(exit_code: int | None, is_stopped: bool) -> job_store.Status:
    if exit_code is None:
        return "running"
    if exit_code == 0:
        return "succeeded"
    return "stopped" if is_stopped else "failed"


def main(arguments: Sequence[str]) -> int:
    """arguments: the job, its settings file and the command; returns the exit code."""
    job, settings, *command = arguments
    supervisor = Supervisor(load_config(settings), job, command)
    # Ray blocks SIGINT in all its processes; the command needs it to stop cleanly.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, supervisor.handle_sigterm)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
