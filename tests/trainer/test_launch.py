"""A driver says what it waits for and follows its group, but not for ever."""

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.connection import Connection
from contract.config import Config, Train
from contract.errors import ClusterError
from contract.storage import open_storage
from trainer import launch
from trainer.data import cases
from trainer.launch import Board, follow

HURRIED = Config().with_values({"cluster.start_timeout_s": 0.1, "train.stall_timeout_s": 0.2})


@pytest.fixture
def group() -> Iterator[threading.Thread]:
    """A group that never ends by itself."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield thread
    over.set()
    thread.join()


@pytest.fixture
def board(ray_cluster: Connection) -> Any:
    return Board.remote()


def test_what_is_waited_for_is_told_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(cluster: object) -> None:
        raise ClusterError("no Ray here.")

    small = {"data.phantom.slices": 4, "data.phantom.size": 64}
    config = Config().with_values({"storage.root": str(tmp_path), **small})
    slices = cases.prepare(config.data, 0, open_storage(str(tmp_path)))
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(launch, "connected", refuse)
    # The slices that the caller has are not looked at, and told of, a second time.
    monkeypatch.setattr(cases, "prepare", refuse)
    with pytest.raises(ClusterError, match="no Ray here"):
        launch.run(config, lambda *progress: told.append(progress), slices)
    ((done, total, note),) = told
    assert (done, total) == (0, None)
    assert str(note).startswith("starting 2 workers")


@pytest.mark.parametrize(
    ("workers", "gpus", "refused"), [(2, 0, False), (3, 0, True), (1, 1, True)]
)
def test_more_than_a_private_cluster_has_is_refused_at_once(
    workers: int, gpus: int, refused: bool
) -> None:
    train = Train(workers=workers, gpus_per_worker=gpus, batch_size=6)
    told = (
        pytest.raises(ClusterError, match=r"has 2 and 0: ask for less")
        if refused
        else nullcontext()
    )
    with told:
        launch.refuse_too_small(train, {"CPU": 2.0})


def test_a_board_starts_again_where_its_process_is_lost(board: Any) -> None:
    ray.get(board.put.remote(1, 9, "loss 1"))
    ray.kill(board, no_restart=False)
    while ray.get(board.get.remote())[0] is not None:
        time.sleep(0.1)


def test_a_group_that_does_not_start_is_given_up(board: Any, group: threading.Thread) -> None:
    with pytest.raises(ClusterError, match=r"did not begin within cluster\.start_timeout_s"):
        follow(group, board, HURRIED, lambda done, total, note: None)


def test_a_group_that_is_lost_and_does_not_start_again_is_given_up(
    board: Any, group: threading.Thread
) -> None:
    told: list[tuple[object, ...]] = []
    ray.get(board.put.remote(1, 9, "loss 1"))
    with pytest.raises(ClusterError, match=r"were lost and did not begin again"):
        follow(group, board, HURRIED, lambda *progress: told.append(progress))
    assert set(told) == {(1, 9, "loss 1")}
