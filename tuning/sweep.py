"""A sweep: trials under Ray Tune, a leaderboard, and the settings and bundle of the best trial.

A sweep is stored in <storage.root>/sweeps/<run.name>/: config.toml when it starts, trials/ while it
runs, then leaderboard.csv, two plots, best_trial.toml and, last, sweep.json. Each trial is a run of
its own, <storage.root>/runs/<run.name>-0001 and so on.
"""

import json
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from cluster import resources
from cluster.connection import environment_variables, ray_session
from cluster.placement_groups import orphan_cleanup
from contract.config import Config, Sweep, Train
from contract.errors import ClusterError, TrainingError
from contract.host_info import host_info
from contract.progress import ProgressCallback, no_progress
from contract.registry import Registry, Version
from contract.storage import Storage, open_storage
from contract.temp_folders import folder_prefix
from trainer.cross_validation.fold_settings import named_fold
from trainer.data import dataset_index
from trainer.data.dataset_index import Dataset
from trainer.training import run_store
from trainer.training.run_lease import run_lease
from trainer.training.start_from import check_start_from, pin_start_from
from tuning import asha, report, search_space
from tuning.best_trial import (
    best_trial_toml,
    export_bundle,
    find_bundle,
    select_best_trial,
    sync_best_trial_history,
)
from tuning.scheduler import SweepScheduler
from tuning.trainable import run_name, train_trial, trial_config, trial_runs
from tuning.trial_store import Trial, TrialStore, rank_trials, read_trials, sweep_storage
from tuning.tune_callbacks import SweepSearcher, TrialRecorder, TrialStopper

log = logging.getLogger(__name__)

CONFIG, RECORD = "config.toml", "sweep.json"

# Settings of [sweep] that say how far a sweep goes; they may change when it is resumed.
_RUNTIME_KEYS = {"num_samples", "time_budget_s", "max_concurrent_trials", "num_workers"}
# Ray Tune's own tables, log files and error texts repeat the trial store; Ctrl-C is handled by us.
_TUNE_ENV = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep.

    storage_url: where it is stored; trials: best first; score: the best trial's value of
    train.monitor in its best epoch; version: its registered bundle.
    """

    storage_url: str
    trials: tuple[Trial, ...]
    best_trial: Trial
    score: float
    version: Version


def run_sweep(config: Config, on_progress: ProgressCallback = no_progress) -> SweepResult:
    """Run, or resume, the sweep of these settings, and register the bundle of its best trial.

    Args:
        config: The settings; [sweep] describes the search.
        on_progress: Called with trials done, trials in total, and a note.

    Returns:
        The trials from best to worst, and the registered bundle of the best trial.

    Raises:
        UserError: The sweep cannot run, or no trial produced a score.

    Example:
        >>> result = run_sweep(load_config("configs/demo.toml"))
        >>> result.best_trial.values
    """
    search_space.check_space(config)
    # Errors that would fail every trial are raised here. No other run has a longer name than the
    # last trial.
    trial_runs(trial_config(config, config.sweep.num_samples, {}))
    sweep = sweep_storage(config)
    # All trials start from the same bundle, even if a stage points to another one meanwhile.
    config = pin_start_from(config, sweep)
    storage = open_storage(config.storage.root)
    datasets = [
        dataset_index.prepare_dataset(each.data, each.run.seed, storage)
        for each in trial_runs(config)
    ]
    check_resumable(sweep, config, datasets[0])
    check_fold_datasets(sweep, config, datasets)
    with run_lease(storage, "sweep", config.run.name):
        return _run_remaining_trials(config, datasets, sweep, on_progress)


def _run_remaining_trials(
    config: Config, datasets: Sequence[Dataset], sweep: Storage, on_progress: ProgressCallback
) -> SweepResult:
    """Run the remaining trials of a sweep whose lease this process holds, and finalize it."""
    store = TrialStore(sweep)
    bundle = None if has_pending_trials(config, store) else find_bundle(store.trials, config)
    if bundle is None:
        bundle = run_trials(config, datasets, store, on_progress)
    sync_best_trial_history(config, store)
    version = Registry(open_storage(config.storage.root)).register(config.run.name, bundle)
    return finalize_sweep(sweep, config, store.trials, version)


def has_pending_trials(config: Config, store: TrialStore) -> bool:
    """Whether there may be trials left to run."""
    trials, budget = store.trials, config.sweep.time_budget_s
    if any(trial.status == "running" for trial in trials):
        return True
    if budget is not None and store.now() >= budget:
        return False
    if any(trial.status == "out of time" for trial in trials):
        return True
    all_sampled = len(trials) >= config.sweep.num_samples
    return not all_sampled or bool(asha.promotable(trials, config.sweep, config.train, idle=True))


def run_trials(
    config: Config, datasets: Sequence[Dataset], store: TrialStore, on_progress: ProgressCallback
) -> str:
    """Run the pending trials; returns the address of the best trial's bundle.

    datasets: The slices, or those of each fold.
    """
    # Trials that train on worker groups leave placement groups behind when they are stopped.
    distributed = workers_per_trial(config.sweep, config.train) > 1
    cleanup = orphan_cleanup() if distributed else nullcontext()
    with ray_session(config.cluster), cleanup:
        if has_pending_trials(config, store):
            run_store.write_run_metadata(sweep_storage(config), config, datasets[0])
            search(config, datasets, store, on_progress)
        existing = find_bundle(store.trials, config)
        return existing or export_bundle(select_best_trial(store.trials, config), config)


def check_resumable(sweep: Storage, config: Config, dataset: Dataset) -> None:
    """TrainingError if the sweep was started with other settings or slices."""
    name, is_empty = f"sweep {config.run.name!r}", not read_trials(sweep)
    run_store.check_same_settings(name, sweep, config, dataset, sweep_settings, is_empty)
    run_store.check_initial_weights(name, sweep, config, dataset, is_empty)


def check_fold_datasets(sweep: Storage, config: Config, datasets: Sequence[Dataset]) -> None:
    """UserError, with the number of the fold, if a trial cannot train on one of several folds."""
    if not config.sweep.cross_validate:
        return
    is_empty = not read_trials(sweep)
    for each, dataset in zip(trial_runs(config), datasets, strict=True):
        with named_fold(each):
            run_store.check_batch_size(dataset, each.train)
            check_start_from(sweep, each, dataset, is_empty)


def sweep_settings(config: Config) -> dict[str, Any]:
    """The settings that determine the trials, as plain values."""
    sweep = config.sweep.model_dump(mode="json", exclude=_RUNTIME_KEYS, exclude_none=True)
    return {**config.training_settings(), "sweep": sweep}


def search(
    config: Config, datasets: Sequence[Dataset], store: TrialStore, on_progress: ProgressCallback
) -> None:
    """Run every trial that is left to run."""
    scheduler = SweepScheduler(config, store, max_concurrent_trials(config.sweep, config.train))
    fit(config, datasets, scheduler, on_progress)
    # A process may have been lost after Ray Tune was told that no trials are left.
    while scheduler.has_interrupted():
        fit(config, datasets, scheduler, on_progress)


def fit(
    config: Config,
    datasets: Sequence[Dataset],
    scheduler: SweepScheduler,
    on_progress: ProgressCallback,
) -> None:
    """Let Ray Tune run trials until the scheduler has no more."""
    with (
        tune_environment(),
        tempfile.TemporaryDirectory(prefix=folder_prefix("tune")) as folder,
        current_folder(folder),
    ):
        try:
            create_tuner(config, datasets, scheduler, on_progress, folder).fit()
        except Exception as error:
            if scheduler.error:
                raise scheduler.error from error
            raise
    scheduler.mark_orphaned()


@contextmanager
def current_folder(folder: str) -> Iterator[None]:
    """Make a folder the current one for the duration of the block.

    Ray Tune needs the current folder to exist. That of a job is unpacked again, and thereby
    replaced, when another node on the same machine starts its first worker.
    """
    before = None
    with suppress(FileNotFoundError):
        before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        if before is not None:
            os.chdir(before)


def create_tuner(
    config: Config,
    datasets: Sequence[Dataset],
    scheduler: SweepScheduler,
    on_progress: ProgressCallback,
    folder: str,
) -> tune.Tuner:
    """Ray Tune's Tuner for these settings; folder: for files that are not kept."""
    trainable = tune.with_parameters(
        train_trial, settings=config.model_dump(mode="json"), datasets=datasets
    )
    is_single_worker = workers_per_trial(config.sweep, config.train) == 1

    def on_record() -> None:
        report_progress(config, scheduler.store.trials, on_progress)

    return tune.Tuner(
        tune.with_resources(trainable, trial_resources(config.sweep, config.train)),
        param_space={},
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=SweepSearcher(scheduler),
            max_concurrent_trials=scheduler.max_concurrent,
            # A reused process has imported TensorFlow already. On a GPU only the end of a process
            # frees the memory, and a worker group ends with its process.
            reuse_actors=config.train.gpus_per_worker == 0 and is_single_worker,
            trial_name_creator=lambda trial: run_name(config, trial.config["number"]),
            trial_dirname_creator=lambda trial: secrets.token_hex(8),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=folder,
            stop=TrialStopper(scheduler),
            callbacks=[TrialRecorder(scheduler, on_record)],
            verbose=0,
        ),
    )


def report_progress(config: Config, trials: list[Trial], on_progress: ProgressCallback) -> None:
    """Report the trials that have ended or passed their first rung."""
    first = asha.first_rung(config.sweep, config.train)
    done = sum(trial.status != "running" or trial.budget_epochs > first for trial in trials)
    on_progress(
        done, config.sweep.num_samples, report.format_sweep_status(trials, config.train.monitor)
    )


def workers_per_trial(sweep: Sweep, train: Train) -> int:
    """Training workers of a trial."""
    return sweep.num_workers or train.num_workers


def trial_resources(sweep: Sweep, train: Train) -> tune.PlacementGroupFactory:
    """What Ray Tune reserves for a trial: its worker, or almost nothing for a group's driver."""
    if workers_per_trial(sweep, train) > 1:
        # A worker group reserves its own resources; Ray Tune requires a non-empty request.
        return tune.PlacementGroupFactory([{"memory": 1}])
    return tune.PlacementGroupFactory(
        [{"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}]
    )


def max_concurrent_trials(sweep: Sweep, train: Train) -> int:
    """Trials at once: sweep.max_concurrent_trials, else as many as the cluster holds.

    Trials beyond what the cluster holds wait in Ray Tune's queue, which makes a cluster grow.
    Raises ClusterError if the cluster does not hold a single trial.
    """
    if sweep.max_concurrent_trials:
        return sweep.max_concurrent_trials
    if limit := resources.max_concurrent_trials(train, sweep, resources.alive_nodes()):
        return limit
    raise ClusterError(
        f"the cluster cannot hold a trial of {workers_per_trial(sweep, train)} workers with "
        f"{train.cpus_per_worker} CPUs and {train.gpus_per_worker} GPUs each: request less, add "
        "nodes, or, if the cluster grows by itself, set sweep.max_concurrent_trials to the number "
        "of trials that it may grow to hold."
    )


@contextmanager
def tune_environment() -> Iterator[None]:
    """Silence Ray Tune and keep it from writing files of its own, for the duration of the block."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    if not log.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.CRITICAL)
    try:
        with environment_variables(_TUNE_ENV):
            yield
    finally:
        logger.setLevel(level)


def finalize_sweep(
    sweep: Storage, config: Config, trials: list[Trial], model_version: Version
) -> SweepResult:
    """Write leaderboard, plots, the best trial's settings and, last, sweep.json."""
    monitor = config.train.monitor
    ranked = rank_trials(trials, monitor)
    best_trial = ranked[0]
    best = best_trial.best_epoch(monitor)
    assert best, "the best trial has a score"
    report.write_report(sweep, config, ranked)
    sweep.write("best_trial.toml", best_trial_toml(config, best_trial).encode())
    record = {
        "best_trial": best_trial.number,
        "run": best_trial.run,
        "values": best_trial.values,
        "monitor": monitor,
        "score": best[monitor],
        "epoch": best["epoch"],
        "bundle": model_version.bundle,
        "version": f"{model_version.name}@{model_version.version}",
        "fingerprint": model_version.fingerprint,
        "host_info": host_info(),
    }
    sweep.write(RECORD, json.dumps(record, indent=2).encode())
    return SweepResult(sweep.url, tuple(ranked), best_trial, best[monitor], model_version)


def read_leaderboard(config: Config) -> list[Trial]:
    """The trials of a sweep so far, best first; TrainingError if it was never started."""
    sweep = sweep_storage(config)
    if not sweep.exists(CONFIG):
        raise TrainingError(
            f"there is no sweep {config.run.name!r} in {sweep.url}: start it with `segfleet sweep`."
        )
    return rank_trials(read_trials(sweep), config.train.monitor)
