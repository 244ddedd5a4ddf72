"""A driver says what it waits for and follows its group, but not indefinitely."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.connection import Connection
from contract.config import Config
from contract.errors import ClusterError
from contract.storage import open_storage
from trainer.data import dataset_index
from trainer.training import launcher
from trainer.training.launcher import Board, monitor_progress

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


def test_a_training_starts_no_process_that_it_has_no_use_for(board: Any) -> None:
    trainer = launcher.make_trainer(Config(), dataset_index.Dataset("nowhere", (), ""), board)
    made = {type(one).__name__ for one in trainer._create_default_callbacks()}
    assert "BackendSetupCallback" in made
    assert not made & {"DatasetsCallback", "PlacementGroupCleanerCallback"}


def test_what_is_waited_for_is_told_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(cluster: object) -> None:
        raise ClusterError("no Ray here.")

    small = {"data.phantom.slices": 4, "data.phantom.size": 64}
    config = Config().with_values({"storage.root": str(tmp_path), **small})
    slices = dataset_index.prepare_dataset(config.data, 0, open_storage(str(tmp_path)))
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(launcher, "connected", refuse)
    # The slices that the caller has are not looked at, and told of, a second time.
    monkeypatch.setattr(dataset_index, "prepare", refuse)
    with pytest.raises(ClusterError, match="no Ray here"):
        launcher.run_training(config, lambda *progress: told.append(progress), slices)
    ((done, total, note),) = told
    assert (done, total) == (0, None)
    assert str(note).startswith("starting 2 workers")


def test_a_board_starts_again_where_its_process_is_lost(board: Any) -> None:
    ray.get(board.put.remote(1, 9, "loss 1"))
    ray.kill(board, no_restart=False)
    while ray.get(board.get.remote())[0] is not None:
        time.sleep(0.1)


def test_a_group_that_does_not_start_is_given_up(board: Any, group: threading.Thread) -> None:
    with pytest.raises(ClusterError, match=r"did not begin within cluster\.start_timeout_s"):
        monitor_progress(group, board, HURRIED, lambda done, total, note: None)


def test_a_group_that_is_lost_and_does_not_start_again_is_given_up(
    board: Any, group: threading.Thread
) -> None:
    told: list[tuple[object, ...]] = []
    ray.get(board.put.remote(1, 9, "loss 1"))
    with pytest.raises(ClusterError, match=r"were lost and did not begin again"):
        monitor_progress(group, board, HURRIED, lambda *progress: told.append(progress))
    assert set(told) == {(1, 9, "loss 1")}
