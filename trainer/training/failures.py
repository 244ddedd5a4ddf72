"""Failures of training workers: what failed in one sentence, and whether a restart can help."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.train import UserCallback

from cluster.ray_internals import memory_usage_gb, worker_process
from contract.config import Train
from contract.errors import StorageError, TrainingError, UserError, last_line

_MEMORY_REMEDY = (
    "lower train.batch_size, network.image_size or network.base_filters, or use nodes with more "
    "memory"
)

# What TensorFlow and NumPy raise if they cannot allocate a tensor or an array.
_ALLOCATION_ERRORS = ("OOM when allocating", "ResourceExhausted", "MemoryError")


@dataclass(frozen=True)
class WorkerFailure:
    """A worker that failed: its rank, its process if it is known, and what happened."""

    rank: int
    process: str
    """"pid 123, node-1", or "" if it is not known."""
    reason: str

    def describe(self) -> str:
        """The clause "worker 1 (pid 123, node-1) ended without a message"."""
        process = f" ({self.process})" if self.process else ""
        return f"worker {self.rank}{process} {self.reason}"


class FailureCallback(UserCallback):
    """Reports failed workers, and ends a run on an error that would occur again."""

    def __init__(self, progress_actor: Any) -> None:
        self._actor = progress_actor

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's UserError, except for a StorageError, which a restart may resolve.

        Ray Train restarts the worker group for any error that a worker raises, but ends the run
        for an error that is raised here.
        """
        for error in worker_exceptions.values():
            if isinstance(error, UserError) and not isinstance(error, StorageError):
                raise error
        self._actor.add_failures.remote(describe_failures(worker_exceptions))


def describe_failures(worker_exceptions: Mapping[int, Exception]) -> list[WorkerFailure]:
    """What happened to each worker that failed."""
    return [
        WorkerFailure(rank, worker_process(error), _reason(error))
        for rank, error in sorted(worker_exceptions.items())
    ]


def _reason(error: BaseException) -> str:
    """What happened to a worker, without the text of Ray."""
    if (user_error := _find_user_error(error)) is not None:
        return f"failed: {str(user_error).removesuffix('.')}"
    if (memory := _memory_error(error)) is not None:
        return memory
    if worker_process(error):
        return (
            "ended without a message (killed, for example because memory was short, or its node "
            "was lost)"
        )
    return f"failed with: {last_line(error)}"


def user_error_from(error: BaseException, train: Train) -> BaseException:
    """The UserError behind a failed worker group, else one sentence on what failed."""
    controller_error = getattr(error, "controller_failure", error)
    failures: dict[int, Exception] = getattr(error, "worker_failures", {}) or {}
    for cause in [*failures.values(), controller_error]:
        if (user_error := _find_user_error(cause)) is not None:
            return user_error
    causes = [*failures.values(), controller_error, error]
    kept = (
        "Finished epochs are not lost: the same command resumes after the last finished epoch "
        "(--verbose shows the logs of the workers)."
    )
    memory = next((text for cause in causes if (text := _memory_error(cause))), None)
    if memory:
        return TrainingError(f"a training worker {memory}: {_MEMORY_REMEDY}. {kept}")
    described = describe_failures(failures)
    last = described[0].describe() if described else f"the last error is: {last_line(causes[0])}"
    return TrainingError(
        f"the training workers failed more than train.max_failures = {train.max_failures} times; "
        f"{last}. {kept}"
    )


def _find_user_error(error: BaseException) -> UserError | None:
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, UserError):
            return current
        current = current.__cause__
    return None


def _memory_error(error: BaseException) -> str | None:
    """What happened to a worker that had too little memory; None if that was not the cause."""
    if (usage := memory_usage_gb(error)) is not None:
        return (
            f"was ended because its node ran out of memory ({usage.used:.1f} of "
            f"{usage.total:.1f} GB were used, the largest worker had {usage.largest:.1f} GB)"
        )
    if any(name in repr(error) for name in _ALLOCATION_ERRORS):
        return f"could not allocate memory ({last_line(error)[:200]})"
    return None
