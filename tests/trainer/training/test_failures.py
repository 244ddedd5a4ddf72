"""Failures of workers become one sentence without the text of Ray."""

import pytest

from contract.config import Train
from contract.errors import DataError, StorageError, TrainingError
from trainer.training.failures import FailureCallback, describe_failures, user_error_from

DIED = RuntimeError(
    "A worker health check failed.\nWorker info: Worker(\n  metadata=ActorMetadata(\n"
    "    hostname='node-1',\n    pid=32714,\n  ),\n)\n"
    "The actor died unexpectedly before finishing this task.\n\tpid: 32714\n"
    "Some common causes include: (1) the process was killed by the OOM killer"
)
MEMORY = RuntimeError(
    "8 worker(s) were killed due to the node running low on memory. Memory on the node was 22.54GB "
    "used / 23.54GB limit (0.95)\nSelected to kill: (Actor(b8): actual memory used=0.11GB)\n"
    "Selected to kill: (Actor(c8): actual memory used=19.62GB)"
)


class WorkerGroupError(Exception):
    """Has the attribute of ray.train.WorkerGroupError that is used."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("Training failed due to worker errors:\n[Rank 1 Error Snippet]: …")
        self.worker_failures = failures


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            DIED,
            "worker 1 (pid 32714, node-1) ended without a message (killed, for example because "
            "memory was short, or its node was lost)",
        ),
        (StorageError("the disk is full."), "worker 1 failed: the disk is full"),
        (
            MemoryError("Unable to allocate 9.00 GiB for an array"),
            "worker 1 could not allocate memory (Unable to allocate 9.00 GiB for an array)",
        ),
        (ValueError("first\nlast."), "worker 1 failed with: last"),
        (
            MEMORY,
            "worker 1 was ended because its node ran out of memory (22.5 of 23.5 GB were used, the "
            "largest worker had 19.6 GB)",
        ),
    ],
)
def test_a_failure_is_one_clause(error: Exception, text: str) -> None:
    (failure,) = describe_failures({1: error})
    assert failure.describe() == text


@pytest.mark.parametrize("error", [MEMORY, WorkerGroupError({0: MEMORY})])
def test_too_little_memory_names_the_settings_to_lower(error: Exception) -> None:
    result = user_error_from(error, Train())
    assert isinstance(result, TrainingError)
    assert "ran out of memory (22.5 of 23.5 GB" in str(result)
    assert "lower train.batch_size" in str(result)
    assert "Selected to kill" not in str(result)


def test_an_error_of_the_user_is_passed_on() -> None:
    error = DataError("a.png is damaged.")
    wrapped = RuntimeError("ray")
    wrapped.__cause__ = error
    assert user_error_from(WorkerGroupError({0: wrapped}), Train()) is error


def test_repeated_failures_name_the_last_one_without_the_text_of_ray() -> None:
    text = str(user_error_from(WorkerGroupError({1: DIED}), Train(max_failures=2)))
    assert "train.max_failures = 2 times; worker 1 (pid 32714, node-1) ended" in text
    assert "common causes" not in text
    assert "resumes after the last finished epoch" in text
    other = str(user_error_from(RuntimeError("boom"), Train()))
    assert "the last error is: boom" in other


def test_only_errors_that_a_restart_may_resolve_are_retried() -> None:
    callback = FailureCallback(None)
    with pytest.raises(DataError):
        callback.after_exception(None, {0: DataError("a.png is damaged.")})
