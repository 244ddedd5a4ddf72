"""Training from settings to a finished run, on a Ray Train worker group.

The driver checks everything that can be checked. Then Ray Train starts the workers, restarts them
if one is lost, and gives up after train.max_failures. Driver and workers share only the storage of
the run, and a small actor that passes progress to the driver.
"""

import logging
import secrets
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import ray
import ray.train
from ray.exceptions import GetTimeoutError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.collective import barrier, broadcast_from_rank_zero
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster import resources
from cluster.connection import memory_note, process_temp_folder, ray_session
from cluster.ray_internals import create_start_callback, start_autoscaling_coordinator
from contract.config import Cluster, Config, Train
from contract.errors import ClusterError
from contract.host_info import host_info
from contract.plurals import pluralize
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage, open_storage
from contract.temp_folders import folder_prefix
from trainer.data import dataset_index
from trainer.data.dataset_index import Dataset
from trainer.training import checkpoints, run_store
from trainer.training.failures import FailureCallback, WorkerFailure, user_error_from
from trainer.training.fit_thread import FitThread
from trainer.training.progress_actor import (
    POLL_INTERVAL_S,
    ProgressReport,
    ProgressReporter,
    create_progress_actor,
)
from trainer.training.run_lease import run_lease
from trainer.training.start_from import log_layers_once, pin_start_from
from trainer.training.tf_backend import MultiWorkerConfig

log = logging.getLogger(__name__)

# Default callbacks of Ray Train that each start a process segfleet does not need; see
# WorkerGroupTrainer.
UNUSED_CALLBACKS = frozenset({"DatasetsCallback", "PlacementGroupCleanerCallback"})

# Seconds that the actor may take to answer, even if the settings allow less for the workers.
_ACTOR_TIMEOUT_S = 30.0

# The Dice of an untrained network, which marks everything or nothing, is below this.
_UNTRAINED_DICE = 0.01


def run_training(
    config: Config, on_progress: ProgressCallback = no_progress, dataset: Dataset | None = None
) -> run_store.RunResult:
    """Train, resume, or return the finished run of these settings.

    Args:
        config: The settings.
        on_progress: Called with steps done, steps in total (None while unknown), and a note.
        dataset: The prepared slices, if the caller has them.

    Returns:
        The finished run: its history, its best epoch and its bundle.

    Raises:
        UserError: The run cannot start, or cannot end; the message names the cause.

    Example:
        >>> result = run_training(load_config("configs/demo.toml"))
        >>> result.best["val_dice_coef"]
    """
    run = run_store.run_storage(config)
    config = pin_start_from(config, run)
    dataset = dataset or dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(config.storage.root)
    )
    run_store.check_resumable(run, config, dataset)
    if (finished := run_store.read_result(run)) is not None:
        log.info("run %s is already finished: %s", config.run.name, finished.bundle)
        return finished
    with run_lease(open_storage(config.storage.root), "run", config.run.name):
        return _train_unfinished(config, dataset, run, on_progress)


def _train_unfinished(
    config: Config, dataset: Dataset, run: Storage, on_progress: ProgressCallback
) -> run_store.RunResult:
    """Train or resume a run whose lease this process holds."""
    # The states are read, not only listed: the workers skip a damaged one.
    if latest := checkpoints.load_latest(run.child("checkpoints")):
        log.info("run %s resumes after epoch %d", config.run.name, latest[0].epochs)
    on_progress(*_start_progress(config.train))
    with ray_session(config.cluster) as session:
        # A local cluster never grows, so waiting for resources that it lacks would not end.
        if session.is_local:
            check_resources(config.train)
            start_autoscaling_coordinator()
        # Only after connecting to a cluster, so that the name of a run that never started is free.
        run_store.write_run_metadata(run, config, dataset)
        if config.train.start_from is not None and latest is None:
            on_progress = log_layers_once(run, config.run.name, on_progress)
        run_worker_group(config, dataset, on_progress)
    finished = run_store.read_result(run)
    assert finished, "a worker group that ended without an error has written run.json"
    warn_if_untrained(config.run.name, finished)
    return finished


def _start_progress(train: Train) -> tuple[int, None, str]:
    """The progress until the workers have started."""
    workers = pluralize(train.num_workers, "worker")
    return 0, None, f"starting {workers} (Ray and TensorFlow may take a minute)"


def warn_if_untrained(name: str, result: run_store.RunResult) -> None:
    """Log a warning if the network segmented nothing in any epoch."""
    best = max((metrics["val_dice_coef"] for metrics in result.history), default=0.0)
    if best < _UNTRAINED_DICE:
        log.warning(
            "the network of run %s learned nothing: its best val_dice_coef in %d epochs is %.4f. "
            "Check the masks and the intensity window with `segfleet inspect`, lower "
            "train.learning_rate, or train more epochs",
            name,
            len(result.history),
            best,
        )


def check_resources(train: Train) -> None:
    """ClusterError if the nodes of the cluster cannot hold the training workers."""
    request = resources.training_request(train)
    if errors := resources.placement_errors(request, resources.alive_nodes()):
        raise ClusterError(errors[0])


def run_worker_group(config: Config, dataset: Dataset, on_progress: ProgressCallback) -> None:
    """Run one worker group to its end and pass its progress on."""
    # Ray's own record of a run is not used, because checkpoints are ours.
    with tempfile.TemporaryDirectory(
        prefix=folder_prefix("train"), ignore_cleanup_errors=True
    ) as folder:
        _run_worker_group(config, dataset, on_progress, folder)


def _run_worker_group(
    config: Config, dataset: Dataset, on_progress: ProgressCallback, folder: str
) -> None:
    progress_actor = create_progress_actor()
    thread = FitThread(create_trainer(config, dataset, progress_actor, folder), progress_actor)
    try:
        thread.start()
        monitor_progress(thread, progress_actor, config, on_progress)
    finally:
        thread.stop()
    if thread.error is not None:
        raise user_error_from(thread.error, config.train) from thread.error


def create_trainer(
    config: Config, dataset: Dataset, progress_actor: Any, folder: str
) -> DataParallelTrainer:
    """Ray Train's trainer for these settings; folder: for its own record of the run."""
    train = config.train
    scaling = ScalingConfig(
        num_workers=train.num_workers,
        use_gpu=train.gpus_per_worker > 0,
        resources_per_worker={"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker},
    )
    # Each attempt has a new name. The same name would make Ray resume from its record, which may
    # be incomplete.
    name = f"{config.run.name}-{secrets.token_hex(4)}"
    return WorkerGroupTrainer(
        train_loop_per_worker,
        backend_config=MultiWorkerConfig(),
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "dataset": dataset,
            "commit": host_info()["commit"],
            "progress_actor": progress_actor,
        },
        scaling_config=scaling,
        run_config=RunConfig(
            name=name,
            storage_path=folder,
            failure_config=FailureConfig(max_failures=train.max_failures),
            callbacks=[
                FailureCallback(progress_actor),
                create_start_callback(progress_actor.set_controller.remote),
            ],
        ),
    )


class WorkerGroupTrainer(DataParallelTrainer):
    """Ray Train's trainer without two of the processes that it starts next to the workers.

    One distributes Ray datasets, which segfleet does not use. The other removes the placement group
    of the workers when its controller has died, and polls Ray's dashboard for that; Ray itself
    does so when the command ends, FitThread when it ends the controller, and
    cluster.placement_groups during a sweep or cross-validation (docs/decisions/0009). If Ray
    renames the callbacks or this hook, its defaults stay in place.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [
            callback for callback in callbacks if type(callback).__name__ not in UNUSED_CALLBACKS
        ]


def train_loop_per_worker(train_loop_config: dict[str, Any]) -> None:
    """What every worker of the group runs: train; rank 0 then exports the bundle."""
    config = Config.model_validate(train_loop_config["config"])
    run = run_store.run_storage(config)
    run_store.check_storage_visible(run)
    # TensorFlow is imported here so that the driver starts without it.
    from trainer.data.pipeline import WorkerRank
    from trainer.training.finalize import finalize_run
    from trainer.training.train_loop import WorkerContext, train

    context = ray.train.get_context()
    reporter = ProgressReporter(train_loop_config["progress_actor"], context.get_world_rank())
    with process_temp_folder(), reporter as report_progress:
        ctx = WorkerContext(
            rank=WorkerRank(context.get_world_rank(), context.get_world_size()),
            broadcast=broadcast_from_rank_zero,
            report_progress=report_progress,
            report_stall=report_progress.report_stall,
        )
        history = train(config, train_loop_config["dataset"], run, ctx)
        if ctx.rank.rank == 0:
            finalize_run(run, config, history, train_loop_config["commit"], report_progress)
        # A worker that returns early breaks the collectives of the others.
        barrier()


def monitor_progress(
    thread: FitThread, progress_actor: Any, config: Config, on_progress: ProgressCallback
) -> None:
    """Pass progress on until the worker group has ended, and log each restart of it.

    on_progress is called at each poll, also before the first progress, so that it can end the group
    by raising.

    Raises ClusterError if its workers do not start, or were lost and do not start again; Ray Train
    itself would try to place them indefinitely.
    """
    started, restarts, heartbeats, last_heartbeat = False, 0, 0, time.monotonic()
    progress: tuple[int, int | None, str] = _start_progress(config.train)
    while thread.is_running:
        thread.wait(POLL_INTERVAL_S)
        report = _read_progress(progress_actor, config, started)
        # The actor is empty after a restart.
        thread.controller = report.controller or thread.controller
        for failures in report.failures[restarts:]:
            restarts += 1
            log_restart(failures, restarts, config)
        if report.progress:
            started, progress = True, report.progress
        on_progress(*progress)
        if report.heartbeats not in (0, heartbeats):
            heartbeats, last_heartbeat = report.heartbeats, time.monotonic()
        silence_s = time.monotonic() - last_heartbeat
        if silence_s > silence_limit_s(config.cluster, config.train, started):
            raise ClusterError(startup_error(config.cluster, config.train, started))


def _read_progress(progress_actor: Any, config: Config, started: bool) -> ProgressReport:
    """The latest progress; ClusterError if the actor that holds it does not answer."""
    timeout_s = max(silence_limit_s(config.cluster, config.train, started), _ACTOR_TIMEOUT_S)
    try:
        return ray.get(progress_actor.latest.remote(), timeout=timeout_s)
    except GetTimeoutError as error:
        # Its process ends again and again, as on a machine without memory.
        raise ClusterError(startup_error(config.cluster, config.train, started)) from error


def log_restart(failures: Sequence[WorkerFailure], attempt: int, config: Config) -> None:
    """Log why the worker group restarts, and from which epoch; nothing after the last attempt."""
    if attempt > config.train.max_failures:
        return
    epoch = run_store.count_epochs(run_store.run_storage(config)) + 1
    log.warning(
        "%s; restarting from epoch %d (attempt %d of %d)",
        "; ".join(failure.describe() for failure in failures) or "the worker group failed",
        epoch,
        attempt,
        config.train.max_failures,
    )


def silence_limit_s(cluster: Cluster, train: Train, started: bool) -> float:
    """Seconds without a heartbeat after which a worker group is given up.

    A group that has started may be stuck until train.stall_timeout_s ends it.
    """
    timeout_s = cluster.start_timeout_s
    return max(timeout_s, train.stall_timeout_s) if started else timeout_s


def startup_error(cluster: Cluster, train: Train, started: bool) -> str:
    """Why a worker group did not start, or not again, according to the cluster."""
    free = ray.available_resources()
    if started:
        limit = silence_limit_s(cluster, train, started)
        fault = (
            f"were lost and did not start again within {limit:.0f} s (cluster.start_timeout_s and "
            "train.stall_timeout_s)"
        )
        remedy = "and run the same command again to resume"
    else:
        fault = f"did not start within cluster.start_timeout_s = {cluster.start_timeout_s:.0f} s"
        remedy = "or wait longer"
    return (
        f"the {pluralize(train.num_workers, 'training worker')} "
        f"({train.cpus_per_worker} CPUs and {train.gpus_per_worker} GPUs each) {fault}; the "
        f"cluster has {free.get('CPU', 0):.0f} CPUs and {free.get('GPU', 0):.0f} GPUs free: "
        f"request less or add nodes, {remedy}."
        f"{memory_note()}"
    )
