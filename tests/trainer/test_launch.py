"""A driver follows its group: it outlives its board, and does not wait for ever."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from cluster.connection import Connection
from contract.config import Config
from contract.errors import ClusterError
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
