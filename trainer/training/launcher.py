"""Training as a whole: from settings to a finished run, on a Ray Train worker group.

The driver checks everything that can be checked, then Ray Train starts the workers, starts them
again when one is lost, and gives up after train.max_failures. Driver and workers meet in the
run's storage alone, and in a small actor that carries progress to whoever watches.
"""

import logging
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.collective import barrier, broadcast_from_rank_zero
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster import resources
from cluster.connection import ray_session
from contract.config import Config
from contract.errors import ClusterError, StorageError, TrainingError, UserError
from contract.host_info import host_info
from contract.storage import open_storage
from trainer.data import dataset_index
from trainer.data.dataset_index import Dataset
from trainer.training import run_store
from trainer.training.tf_backend import MultiWorkerConfig

log = logging.getLogger(__name__)

# How often the driver asks for progress, and rank 0 tells it, in seconds.
_POLL_S = 0.5
# How often rank 0 says that it lives, in seconds.
_BEAT_S = 5.0

ProgressCallback = Callable[[int, int | None, str], None]


def no_progress(done: int, total: int | None, note: str) -> None:
    """For a caller who does not watch."""


def run_training(
    config: Config, on_progress: ProgressCallback = no_progress, slices: Dataset | None = None
) -> run_store.RunResult:
    """Train, or continue, or find finished, the run of these settings.

    watch is called with (steps done, steps in all or None, a note) as training goes on; slices:
    the prepared ones, where the caller has them. Raises UserError with the cause where the run
    cannot start or end.
    """
    place = run_store.run_storage(config)
    slices = slices or dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(config.storage.root)
    )
    run_store.check_resumable(place, config, slices)
    if (finished := run_store.read_result(place)) is not None:
        log.info("run %s is finished already: %s", config.run.name, finished.bundle)
        return finished
    if done := run_store.count_epochs(place):
        log.info("run %s continues after epoch %d", config.run.name, done)
    count = config.train.num_workers
    workers = f"{count} worker{'s' if count > 1 else ''}"
    on_progress(0, None, f"starting {workers} (Ray and TensorFlow may take a minute)")
    with ray_session(config.cluster) as connection:
        # A private cluster never grows: what it cannot hold now would be waited for in vain.
        if connection.private and (
            told := resources.placement_errors(
                resources.training_request(config), resources.alive_nodes()
            )
        ):
            raise ClusterError(told[0])
        # Not before there is a cluster: a name whose run never began stays free.
        run_store.write_run_metadata(place, config, slices)
        run_worker_group(config, slices, on_progress)
    finished = run_store.read_result(place)
    assert finished, "a group that ended without error has written run.json"
    return finished


def run_worker_group(config: Config, slices: Dataset, on_progress: ProgressCallback) -> None:
    """Run one worker group to its end, telling the watcher how far it is."""
    board = Board.remote()
    trainer = make_trainer(config, slices, board)
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failed.append(error)

    # In a thread, because in the main thread Ray Train takes over Ctrl-C.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    monitor_progress(thread, board, config, on_progress)
    if failed:
        raise user_error_from(failed[0], config) from failed[0]


def make_trainer(config: Config, slices: Dataset, board: Any) -> DataParallelTrainer:
    """Ray Train's trainer for these settings."""
    train = config.train
    scaling = ScalingConfig(
        num_workers=train.num_workers,
        use_gpu=train.gpus_per_worker > 0,
        resources_per_worker={"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker},
    )
    # Ray's own record of a run is not used (checkpoints are ours), so each attempt is a new one
    # to Ray; the same name would make it resume from a record that may be half written.
    name = f"{config.run.name}-{secrets.token_hex(4)}"
    state = str(Path(tempfile.gettempdir()) / "segfleet-ray-train")
    return Trainer(
        train_loop_per_worker,
        backend_config=MultiWorkerConfig(),
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "slices": slices,
            "commit": host_info()["commit"],
            "board": board,
        },
        scaling_config=scaling,
        run_config=RunConfig(
            name=name,
            storage_path=state,
            failure_config=FailureConfig(max_failures=train.max_failures),
            callbacks=[FailFastCallback()],
        ),
    )


class Trainer(DataParallelTrainer):
    """Ray Train's trainer without two of the processes that it starts beside the workers.

    One distributes Ray datasets, of which there are none. The other frees what the workers had
    reserved when its controller has died, and asks Ray's dashboard for that; Ray itself does it
    when the command ends, and cluster.placement_groups within a sweep (docs/decisions/0009).
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        idle = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [one for one in super()._create_default_callbacks() if not isinstance(one, idle)]


class FailFastCallback(UserCallback):
    """Ends a run at once for an error that would come again with every start of the workers."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's error if its user must mend it; a store may answer the next time.

        Ray Train starts the group again for whatever a worker raises, but ends the run for what
        is raised here.
        """
        for error in worker_exceptions.values():
            if isinstance(error, UserError) and not isinstance(error, StorageError):
                raise error


def train_loop_per_worker(message: dict[str, Any]) -> None:
    """What every worker of the group runs: train, and rank 0 makes the bundle."""
    config = Config.model_validate(message["config"])
    place = run_store.run_storage(config)
    run_store.check_storage_visible(place)
    # TensorFlow is imported here so that the driver starts without it.
    from trainer.data.pipeline import WorkerRank
    from trainer.training.finalize import finalize_run
    from trainer.training.train_loop import WorkerContext, train

    context = ray.train.get_context()
    with ProgressReporter(message["board"]) as telling:
        around = WorkerContext(
            rank=WorkerRank(context.get_world_rank(), context.get_world_size()),
            broadcast=broadcast_from_rank_zero,
            report_epoch=lambda row: ray.train.report(dict(row)),
            report_progress=telling,
        )
        history = train(config, message["slices"], place, around)
        if around.rank.rank == 0:
            finalize_run(place, config, history, message["commit"])
        # A worker that leaves early breaks the collectives of the others.
        barrier()


class ProgressReporter:
    """Tells the board how far training is, not more often than the board is read.

    From the first time to the end of the block it also says that this worker lives: reading
    slices, a validation and the bundle may take long without a step.
    """

    def __init__(self, board: Any) -> None:
        self.progress_actor, self.last_sent, self.stopped = board, 0.0, threading.Event()

    def __enter__(self) -> "ProgressReporter":
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()

    def _send_heartbeats(self) -> None:
        while not self.stopped.wait(_BEAT_S):
            self.progress_actor.beat.remote()

    def __call__(self, done: int, total: int | None, note: str) -> None:
        """Pass on that so many steps of so many are done."""
        if not self.last_sent:
            threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True).start()
        if done in (0, total) or time.monotonic() - self.last_sent > _POLL_S:
            self.last_sent = time.monotonic()
            self.progress_actor.put.remote(done, total, note)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Board:
    """Holds the latest progress; written by rank 0, read by the driver.

    Its node may be lost like any other: it starts again, empty, on another one.
    """

    def __init__(self) -> None:
        self.latest: tuple[int, int | None, str] | None = None
        self.heard = time.monotonic()

    def put(self, done: int, total: int | None, note: str) -> None:
        """Replace the progress."""
        self.latest = (done, total, note)
        self.beat()

    def beat(self) -> None:
        """Hear that rank 0 lives."""
        self.heard = time.monotonic()

    def get(self) -> tuple[tuple[int, int | None, str] | None, float]:
        """The latest progress, None before a worker has begun, and seconds of silence since."""
        return self.latest, time.monotonic() - self.heard


def monitor_progress(
    thread: threading.Thread, board: Any, config: Config, on_progress: ProgressCallback
) -> None:
    """Pass progress on until the group has ended.

    Raises ClusterError where its workers do not start, or where they were lost and do not start
    again: Ray Train itself tries to place them for ever.
    """
    started = False
    while thread.is_alive():
        thread.join(_POLL_S)
        latest, silence = ray.get(board.get.remote())
        if latest:
            started = True
            on_progress(*latest)
        if silence > silence_limit_s(config, started):
            raise ClusterError(startup_error(config, started))


def silence_limit_s(config: Config, started: bool) -> float:
    """Seconds of silence after which a group is given up.

    One that has started may be hanging until train.stall_timeout_s ends it.
    """
    start = config.cluster.start_timeout_s
    return max(start, config.train.stall_timeout_s) if started else start


def startup_error(config: Config, started: bool) -> str:
    """Why a group did not start, or not again, as far as the cluster tells."""
    train, free = config.train, ray.available_resources()
    settings = "cluster.start_timeout_s and train.stall_timeout_s"
    fault = (
        f"were lost and did not begin again within {silence_limit_s(config, started):.0f} s ({settings})"
        if started
        else "did not begin within cluster.start_timeout_s = "
        f"{config.cluster.start_timeout_s:.0f} s"
    )
    kept = ", and run the same command again to continue" if started else ", or wait longer"
    return (
        f"the {train.num_workers} training workers ({train.cpus_per_worker} CPUs and "
        f"{train.gpus_per_worker} GPUs each) {fault}; the cluster has {free.get('CPU', 0):.0f} "
        f"CPUs and {free.get('GPU', 0):.0f} GPUs free: ask for less or add nodes{kept}."
    )


def user_error_from(error: BaseException, config: Config) -> BaseException:
    """The user's error behind a failed group, or one sentence on what was lost and what was not."""
    controller = getattr(error, "controller_failure", error)
    causes = list(getattr(error, "worker_failures", {}).values()) or [controller]
    for cause in causes:
        found: BaseException | None = cause
        while found is not None:
            if isinstance(found, UserError):
                return found
            found = found.__cause__
    first = (str(causes[0]).strip() or type(causes[0]).__name__).splitlines()
    return TrainingError(
        f"the training workers failed more than train.max_failures = {config.train.max_failures} "
        f"times, the last time with: {first[-1]}. Nothing finished is lost: the same command "
        "continues from the last finished epoch (--verbose shows the workers' logs)."
    )
