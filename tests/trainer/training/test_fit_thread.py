"""A worker group ends, with the thread that waits for it, before the process leaves Ray."""

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import RunConfig, ScalingConfig
from ray.util import placement_group_table

from cluster.connection import Connection
from cluster.ray_internals import create_start_callback
from contract.config import Config
from contract.imaging.mask_encoding import threshold_encoding
from contract.temp_folders import process_exists
from tests.waiting import HANG_TIMEOUT_S, wait_until
from trainer.data.dataset_index import Dataset
from trainer.training import fit_thread, launcher
from trainer.training.fit_thread import FitThread
from trainer.training.launcher import WorkerGroupTrainer
from trainer.training.progress_actor import ProgressActor


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller may take long to start on a busy machine."""
    monkeypatch.setattr(fit_thread, "STOP_TIMEOUT_S", HANG_TIMEOUT_S)


def test_stopping_ends_the_workers_and_the_thread(ray_cluster: Connection, tmp_path: Path) -> None:
    started = tmp_path / "pid"

    def work() -> None:
        started.with_suffix(".part").write_text(str(os.getpid()))
        started.with_suffix(".part").rename(started)
        time.sleep(HANG_TIMEOUT_S)

    actor: Any = ProgressActor.remote()
    trainer = WorkerGroupTrainer(
        work,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(
            name="endless",
            storage_path=str(tmp_path),
            callbacks=[create_start_callback(actor.set_controller.remote)],
        ),
    )
    thread = FitThread(trainer, actor)
    thread.start()
    wait_until(started.exists)
    assert thread.is_running
    thread.stop()
    assert not thread.is_running
    assert thread.error is not None
    wait_until(lambda: not process_exists(int(started.read_text())))
    wait_until(has_no_placement_groups)


def test_ctrl_c_while_waiting_does_not_end_the_thread() -> None:
    """As it would seem after Thread.join() before Python 3.13."""
    finish = threading.Event()
    trainer: Any = SimpleNamespace(fit=finish.wait)
    thread = FitThread(trainer, None)
    assert not thread.is_running
    thread.start()
    interrupting = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        thread.wait(HANG_TIMEOUT_S)
    assert thread.is_running
    finish.set()
    thread.wait(HANG_TIMEOUT_S)
    assert not thread.is_running


def test_an_interruption_before_the_first_progress_leaves_no_thread(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int | None, note: str) -> None:
        raise KeyboardInterrupt

    dataset = Dataset("nowhere", (), "", threshold_encoding(127))
    config = Config().with_values({"storage.root": str(tmp_path)})
    with pytest.raises(KeyboardInterrupt):
        launcher.run_worker_group(config, dataset, interrupt)
    wait_until(lambda: "ray-train" not in {thread.name for thread in threading.enumerate()})
    wait_until(has_no_placement_groups)


def has_no_placement_groups() -> bool:
    """Whether the resources of all worker groups are free."""
    groups: dict[str, dict[str, object]] = placement_group_table()
    return {group["state"] for group in groups.values()} <= {"REMOVED"}
