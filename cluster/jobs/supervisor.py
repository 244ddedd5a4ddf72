"""What runs on the head node around a submitted command.

Ray forgets a job's log and state with its head node, and stops a job within seconds. The
supervisor keeps both in the run's storage while the command runs, and on request ends the
command after its next checkpoint. It is started as `python -m cluster.jobs.supervisor`.
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
from contract.config.loader import load_config
from contract.errors import StorageError
from contract.storage import Storage, open_storage

T = TypeVar("T")

COMMANDS_WITH_CHECKPOINTS = (("trainer", "train"), ("tuning", "run"))
"""The commands that write checkpoints, and continue from them when they are run again."""
KEEP_EVERY_S = 10.0
LOOK_EVERY_S = 3.0
END_WITHIN_S = 60.0
_TICK_S = 0.2


@dataclass(frozen=True)
class Intervals:
    """The seconds between two looks, so that a test need not wait for them."""

    upload_s: float = KEEP_EVERY_S
    poll_s: float = LOOK_EVERY_S
    kill_s: float = END_WITHIN_S


def should_end(request: StopRequest, asked_s: float, waits: bool, new: bool) -> bool:
    """Whether a command that was asked to stop may be ended now.

    asked_s: seconds since the request was seen; waits: the command writes checkpoints, and ends
    after the next one; new: one was written since.
    """
    return not waits or new or asked_s >= request.timeout_s


def list_checkpoint_marks(root: Storage, run: str, command: Sequence[str]) -> set[str]:
    """Marks of every checkpoint that a command has finished; a new one is a new mark.

    Of a training these are the objects written last into each checkpoint; of a sweep the records
    of its trials, each written again after an epoch whose checkpoint is whole.
    """
    match tuple(command[:2]):
        case ("trainer", "train"):
            keys = (entry.key for entry in root.list_objects(f"runs/{run}/checkpoints"))
            return {key for key in keys if key.endswith("/checkpoint.json")}
        case ("tuning", "run"):
            trials = root.list_objects(f"sweeps/{run}/trials")
            return {f"{entry.key} {entry.modified}" for entry in trials}
        case _:
            return set()


class Supervisor:
    """Runs one command, keeps its log and state, and ends it when asked."""

    def __init__(
        self, config: Config, job: str, command: Sequence[str], clock: Intervals | None = None
    ) -> None:
        """command: room, subcommand and arguments, as behind `python -m`."""
        self._root = open_storage(config.storage.root)
        self._name, self._job, self._command = config.run.name, job, tuple(command)
        self._jobs, self._clock = job_store.jobs_storage(config), clock or Intervals()
        self._log = LogUploader(self._jobs, job)
        self._began, self._reachable = job_store.utc_timestamp(), True
        self._ending = self._stopped = False

    def run(self) -> int:
        """Run the command to its end; its exit code, 128 and the signal's number where killed."""
        child = subprocess.Popen(
            [sys.executable, "-m", *self._command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert child.stdout
        reader = Thread(target=self._pass_on, args=(child.stdout,), daemon=True)
        reader.start()
        self._attend(child)
        reader.join(timeout=self._clock.kill_s)
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        self._keep(code)
        return code

    def _attend(self, child: "subprocess.Popen[bytes]") -> None:
        kept, looked, parent = 0.0, 0.0, os.getppid()
        watch: Callable[[], bool] | None = None
        while child.poll() is None:
            now = time.monotonic()
            if now - kept >= self._clock.upload_s:
                self._keep(None)
                kept = now
            if os.getppid() != parent and not self._ending:
                # Ray has gone without ending its jobs, as when its processes are killed.
                self._end(child, "Ray has ended on this node")
            if now - looked >= self._clock.poll_s and not self._ending:
                watch = watch or self._watch()
                looked = now
                if watch and watch():
                    self._stopped = True
                    self._end(child, "stopping")
            time.sleep(_TICK_S)

    def _watch(self) -> Callable[[], bool] | None:
        """Once a stop was asked for, a question that is True when the command may be ended."""
        request = self._tried(lambda: job_store.read_stop_request(self._jobs, self._job))
        if request is None:
            return None
        asked, before = time.monotonic(), self._checkpoints()
        waits = self._command[:2] in COMMANDS_WITH_CHECKPOINTS
        if waits:
            self._say(f"stop was asked for: waits {request.timeout_s:.0f} s for a checkpoint")

        def may_end() -> bool:
            new = bool(self._checkpoints() - before)
            return should_end(request, time.monotonic() - asked, waits, new)

        return may_end

    def _checkpoints(self) -> set[str]:
        found = self._tried(lambda: list_checkpoint_marks(self._root, self._name, self._command))
        return found or set()

    def _end(self, child: "subprocess.Popen[bytes]", why: str) -> None:
        """End the command as Ctrl-C does, and by force where it does not obey."""
        self._ending = True
        self._say(f"{why}: ends {' '.join(self._command)}")
        child.send_signal(signal.SIGINT)
        Thread(target=self._kill_late, args=(child,), daemon=True).start()

    def _kill_late(self, child: "subprocess.Popen[bytes]") -> None:
        try:
            child.wait(self._clock.kill_s)
        except subprocess.TimeoutExpired:
            child.kill()

    def handle_sigterm(self, *_: object) -> None:
        """Note that Ray stops the job; it has sent the same signal to the command."""
        self._ending = self._stopped = True

    def _pass_on(self, output: IO[bytes]) -> None:
        """Print what the command prints, for Ray's log, and keep it."""
        while text := os.read(output.fileno(), 2**16):
            self._put(text)

    def _say(self, line: str) -> None:
        self._put(f"{line}\n".encode())

    def _put(self, text: bytes) -> None:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        self._log.add(text)

    def _keep(self, exit_code: int | None) -> None:
        state = _state(exit_code, self._stopped)
        entry = JobRecord(
            job=self._job,
            command=self._command,
            status=state,
            started_at=self._began,
            last_seen=job_store.utc_timestamp(),
            exit_code=exit_code,
        )

        def keep() -> None:
            self._log.upload()
            job_store.write_job(self._jobs, entry)

        self._tried(keep)

    def _tried(self, act: Callable[[], T]) -> T | None:
        """The result, or None where the store does not answer: the command continues without it."""
        try:
            result = act()
        except StorageError as error:
            if self._reachable:
                self._say(f"the job's log is not kept for now: {error}")
            self._reachable = False
            return None
        self._reachable = True
        return result


def _state(exit_code: int | None, stopped: bool) -> job_store.Status:
    if exit_code is None:
        return "running"
    if exit_code == 0:
        return "succeeded"
    return "stopped" if stopped else "failed"


def main(arguments: Sequence[str]) -> int:
    """arguments: the job, its settings file, and the command."""
    job, settings, *command = arguments
    supervisor = Supervisor(load_config(settings), job, command)
    # Ray blocks Ctrl-C's signal in all its processes; the command must hear it to end well.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, supervisor.handle_sigterm)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
