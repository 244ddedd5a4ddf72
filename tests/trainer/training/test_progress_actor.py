"""The driver reads progress and failures of its workers from an actor."""

import time
from typing import Any

import pytest
import ray

from cluster.connection import Connection
from trainer.training.failures import WorkerFailure
from trainer.training.progress_actor import ProgressActor, ProgressReport, ProgressReporter


@pytest.fixture
def progress_actor(ray_cluster: Connection) -> Any:
    return ProgressActor.remote()


def read(progress_actor: Any) -> ProgressReport:
    """The latest report; calls of this process before it have arrived."""
    return ray.get(progress_actor.latest.remote())


def test_the_progress_actor_restarts_if_its_process_is_lost(progress_actor: Any) -> None:
    ray.get(progress_actor.update.remote(1, 9, "loss 1"))
    ray.kill(progress_actor, no_restart=False)

    def latest() -> Any:
        return ray.get(progress_actor.latest.remote())

    while latest().progress is not None:
        time.sleep(0.1)


@pytest.fixture(scope="module")
def live_actor(ray_cluster: Connection) -> Any:
    """An actor for all tests that do not end it, because each one takes a second to start."""
    return ProgressActor.remote()


def test_the_first_and_the_last_step_are_always_reported(live_actor: Any) -> None:
    assert read(live_actor).progress is None
    with ProgressReporter(live_actor, rank=0) as report_progress:
        report_progress(0, 1000, "compiling")
        assert read(live_actor).progress == (0, 1000, "compiling")
        for done in range(1, 1001):
            report_progress(done, 1000, "loss 1")
        assert read(live_actor).progress == (1000, 1000, "loss 1")


def test_a_worker_that_ends_itself_is_reported_as_one_that_stopped_responding(
    live_actor: Any,
) -> None:
    failures = [WorkerFailure(rank, "pid 1", "ended without a message") for rank in (0, 1)]
    ProgressReporter(live_actor, rank=1).report_stall(7.4)
    for _ in range(2):
        live_actor.add_failures.remote(failures)
    first, second = read(live_actor).failures
    assert [failure.reason for failure in first] == [
        "ended without a message",
        "stopped responding for 7 s",
    ]
    # A stall explains one failure, not the next one.
    assert list(second) == failures


def test_a_worker_ends_itself_even_if_it_cannot_report_it(progress_actor: Any) -> None:
    ray.kill(progress_actor, no_restart=True)
    ProgressReporter(progress_actor, rank=0).report_stall(7.0)
