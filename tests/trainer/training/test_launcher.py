"""A driver reports what it waits for and monitors its worker group, but not indefinitely."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.connection import Connection
from contract.config import Config
from contract.errors import ClusterError
from contract.imaging.mask_encoding import threshold_encoding
from contract.storage import open_storage
from trainer.data import dataset_index
from trainer.training import launcher
from trainer.training.fit_thread import FitThread
from trainer.training.launcher import DataParallelTrainer, monitor_progress
from trainer.training.progress_actor import ProgressActor
from trainer.training.run_store import RunResult

SHORT_TIMEOUTS = Config().with_values(
    {"cluster.start_timeout_s": 0.1, "train.stall_timeout_s": 0.2}
)


@pytest.fixture
def worker_group(progress_actor: Any) -> Iterator[FitThread]:
    """A worker group that never ends by itself."""
    ended = threading.Event()
    endless: Any = SimpleNamespace(fit=ended.wait)
    thread = FitThread(endless, progress_actor)
    thread.start()
    yield thread
    ended.set()
    thread.join()


@pytest.fixture
def progress_actor(ray_cluster: Connection) -> Any:
    return ProgressActor.remote()


def test_unused_processes_of_ray_train_are_not_started(progress_actor: Any) -> None:
    dataset = dataset_index.Dataset("nowhere", (), "", threshold_encoding(127))
    trainer = launcher.create_trainer(Config(), dataset, progress_actor, "folder")
    used = {type(callback).__name__ for callback in trainer._create_default_callbacks()}
    defaults = DataParallelTrainer._create_default_callbacks(trainer)
    # Fails if Ray renames a callback, which would then be started again.
    names = {type(callback).__name__ for callback in defaults}
    assert names >= launcher.UNUSED_CALLBACKS
    assert used == names - launcher.UNUSED_CALLBACKS
    assert "BackendSetupCallback" in used


def test_the_start_is_reported_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cluster: object) -> None:
        raise ClusterError("no Ray here.")

    small = {"data.phantom.slices": 4, "data.phantom.size": 64}
    config = Config().with_values({"storage.root": str(tmp_path), **small})
    dataset = dataset_index.prepare_dataset(config.data, 0, open_storage(str(tmp_path)))
    reports: list[tuple[object, ...]] = []
    monkeypatch.setattr(launcher, "ray_session", fail)
    # The dataset of the caller is not prepared a second time.
    monkeypatch.setattr(dataset_index, "prepare_dataset", fail)
    with pytest.raises(ClusterError, match="no Ray here"):
        launcher.run_training(config, lambda *progress: reports.append(progress), dataset)
    ((done, total, note),) = reports
    assert (done, total) == (0, None)
    assert str(note).startswith("starting 2 workers")


def test_a_group_that_does_not_start_is_an_error(
    progress_actor: Any, worker_group: FitThread
) -> None:
    with pytest.raises(ClusterError, match=r"did not start within cluster\.start_timeout_s"):
        monitor_progress(
            worker_group, progress_actor, SHORT_TIMEOUTS, lambda done, total, note: None
        )


def test_a_group_that_is_lost_and_does_not_start_again_is_an_error(
    progress_actor: Any, worker_group: FitThread
) -> None:
    reports: list[tuple[object, ...]] = []
    ray.get(progress_actor.update.remote(1, 9, "loss 1"))
    with pytest.raises(ClusterError, match=r"were lost and did not start again"):
        monitor_progress(
            worker_group, progress_actor, SHORT_TIMEOUTS, lambda *progress: reports.append(progress)
        )
    assert set(reports) == {(1, 9, "loss 1")}


def test_restarts_of_the_progress_actor_do_not_extend_the_time_limit(
    progress_actor: Any, worker_group: FitThread
) -> None:
    """As on a node without memory, where Ray ends each process soon after its start."""
    ended = threading.Event()

    def end_the_actor_repeatedly() -> None:
        while not ended.wait(0.5):
            ray.get(progress_actor.latest.remote())
            ray.kill(progress_actor, no_restart=False)

    config = SHORT_TIMEOUTS.with_values({"cluster.start_timeout_s": 5.0})
    killing = threading.Thread(target=end_the_actor_repeatedly)
    killing.start()
    try:
        with pytest.raises(ClusterError, match="did not start within"):
            monitor_progress(worker_group, progress_actor, config, lambda done, total, note: None)
    finally:
        ended.set()
        killing.join()


@pytest.mark.parametrize(("dice", "warns"), [((0.0001, 0.0), True), ((0.0001, 0.3), False)])
def test_a_training_that_learned_nothing_says_so(
    dice: tuple[float, ...], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    history = tuple({"epoch": float(i), "val_dice_coef": value} for i, value in enumerate(dice, 1))
    launcher.warn_if_untrained("demo", RunResult("run", "run/bundle", history, history[0]))
    expected = "the network of run demo learned nothing: its best val_dice_coef in 2 epochs is 0.00"
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warns
    assert (expected in caplog.text) is warns
    assert ("`segfleet inspect`" in caplog.text) is warns
