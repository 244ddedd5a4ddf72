"""A sweep as a whole: trials under Ray Tune, a leaderboard, the winner's settings and bundle.

A sweep lies at <storage.root>/sweeps/<run.name>/: config.toml when it begins, trials/ while it
runs, leaderboard.csv, two plots, winner.toml and, last, sweep.json when it is over. Each trial is
a run of its own, <storage.root>/runs/<run.name>-0001 and so on.
"""

import json
import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from cluster import resources as capacity
from cluster.connection import ray_session
from cluster.placement_groups import orphan_cleanup
from contract.config import Config
from contract.config.loader import to_toml
from contract.errors import ClusterError, TrainingError
from contract.host_info import host_info
from contract.registry import Registry, Version
from contract.storage import Storage, open_storage
from trainer.data import dataset_index
from trainer.data.dataset_index import Dataset
from trainer.training import run_store
from tuning import asha, report, search_space
from tuning.scheduler import SweepSearcher, TrialRecorder, TrialScheduler, TrialStopper
from tuning.trainable import run_name, train_trial, trial_config
from tuning.trial_store import Trial, TrialStore, rank_trials, read_trials

log = logging.getLogger(__name__)

CONFIG, RECORD = "config.toml", "sweep.json"

# Settings of [sweep] that say how far a sweep goes, and may change when it is continued.
_EXTENT = {"num_samples", "time_budget_s", "max_concurrent_trials", "num_workers"}
# Tune's own tables, log files and error texts say again what the ledger says; Ctrl-C is ours.
_TUNE_VARIABLES = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}

ProgressCallback = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep: where it lies, its trials (best first) and its registered winner."""

    place: str
    trials: tuple[Trial, ...]
    winner: Trial
    score: float
    version: Version


def no_progress(done: int, total: int | None, note: str) -> None:
    """For a caller who does not watch."""


def run_sweep(config: Config, on_progress: ProgressCallback = no_progress) -> SweepResult:
    """Carry out, or continue, the sweep of these settings, and register its winner's bundle.

    watch is called with (trials done, trials in all, a note). Raises UserError where the sweep
    cannot be carried out, or no trial gave a score.
    """
    search_space.check_space(config)
    # What would fail every trial, or the sweep when all of them are done, is told before the first.
    trial_config(config, config.sweep.num_samples, {})
    config.with_values({"run.name": winner_name(config)})
    store = sweep_storage(config)
    slices = dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(config.storage.root)
    )
    check_resumable(store, config, slices)
    ledger = TrialStore(store)
    bundle = None if has_pending_trials(config, ledger) else winner_bundle(ledger.trials, config)
    if bundle is None:
        bundle = run_trials(config, slices, ledger, on_progress)
    sync_winner_history(config, ledger)
    version = Registry(open_storage(config.storage.root)).register(config.run.name, bundle)
    return finalize_sweep(store, config, ledger.trials, version)


def has_pending_trials(config: Config, ledger: TrialStore) -> bool:
    """Whether there may be trials to run."""
    trials, budget = ledger.trials, config.sweep.time_budget_s
    if any(trial.state == "running" for trial in trials):
        return True
    if budget is not None and ledger.now() >= budget:
        return False
    if any(trial.state == "out of time" for trial in trials):
        return True
    drawn = len(trials) >= config.sweep.num_samples
    return not drawn or bool(asha.promotable(trials, config, idle=True))


def run_trials(config: Config, slices: Dataset, ledger: TrialStore, watch: ProgressCallback) -> str:
    """Run the trials that are left; the address of the winner's bundle."""
    # The trials that train as worker groups leave something behind where they are stopped.
    tidied = orphan_cleanup() if workers_per_trial(config) > 1 else nullcontext()
    with ray_session(config.cluster), tidied:
        if has_pending_trials(config, ledger):
            run_store.write_run_metadata(sweep_storage(config), config, slices)
            search(config, slices, ledger, watch)
        return winner_bundle(ledger.trials, config) or make_bundle(
            best_trial(ledger.trials, config), config
        )


def sweep_storage(config: Config) -> Storage:
    """Where the sweep of these settings is kept."""
    return open_storage(config.storage.root).child(f"sweeps/{config.run.name}")


def check_resumable(store: Storage, config: Config, slices: Dataset) -> None:
    """TrainingError where a sweep was begun with other settings or slices."""
    called, empty = f"sweep {config.run.name!r}", not read_trials(store)
    run_store.check_same_settings(called, store, config, slices, sweep_settings, empty)


def sweep_settings(config: Config) -> dict[str, Any]:
    """The settings that decide the trials, as plain values."""
    sweep = config.sweep.model_dump(mode="json", exclude=_EXTENT, exclude_none=True)
    return {**config.training_settings(), "sweep": sweep}


def search(config: Config, slices: Dataset, ledger: TrialStore, watch: ProgressCallback) -> None:
    """Run every trial that is still to be run."""
    steering = TrialScheduler(config, ledger, max_concurrent_trials(config))
    fit(config, slices, steering, watch)
    # A trial whose process was lost after Tune had been told that there are no more.
    while steering.has_interrupted():
        fit(config, slices, steering, watch)


def fit(config: Config, slices: Dataset, steering: TrialScheduler, watch: ProgressCallback) -> None:
    """Have Ray Tune run trials until it is told that there are no more."""
    with tune_environment(), tempfile.TemporaryDirectory(prefix="segfleet-tune-") as folder:
        try:
            make_tuner(config, slices, steering, watch, folder).fit()
        except Exception as error:
            if steering.error:
                raise steering.error from error
            raise
    steering.mark_orphaned()


def make_tuner(
    config: Config, slices: Dataset, steering: TrialScheduler, watch: ProgressCallback, folder: str
) -> tune.Tuner:
    """Ray Tune's tuner for these settings; folder: for files that nobody needs afterwards."""
    trainable = tune.with_parameters(
        train_trial, settings=config.model_dump(mode="json"), slices=slices
    )
    return tune.Tuner(
        tune.with_resources(trainable, trial_resources(config)),
        param_space={},
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=SweepSearcher(steering),
            max_concurrent_trials=steering.max_concurrent,
            # A process that is used again has TensorFlow imported already; on a GPU only its
            # end gives the memory back, and a worker group ends with it.
            reuse_actors=config.train.gpus_per_worker == 0 and workers_per_trial(config) == 1,
            trial_name_creator=lambda trial: run_name(config, trial.config["number"]),
            trial_dirname_creator=lambda trial: secrets.token_hex(8),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=folder,
            stop=TrialStopper(steering),
            callbacks=[
                TrialRecorder(
                    steering, lambda: report_progress(config, steering.store.trials, watch)
                )
            ],
            verbose=0,
        ),
    )


def report_progress(config: Config, trials: list[Trial], watch: ProgressCallback) -> None:
    """Tell the watcher how far the sweep is: trials that are over, or at least past a rung."""
    first = asha.first_rung(config)
    done = sum(trial.state != "running" or trial.budget_epochs > first for trial in trials)
    watch(done, config.sweep.num_samples, report.sweep_status(trials, config.train.monitor))


def workers_per_trial(config: Config) -> int:
    """Training workers of a trial."""
    return config.sweep.num_workers or config.train.num_workers


def trial_resources(config: Config) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: its worker, or next to nothing for a group's driver."""
    if workers_per_trial(config) > 1:
        # A group reserves its own; Tune wants to be asked for something.
        return tune.PlacementGroupFactory([{"memory": 1}])
    train = config.train
    return tune.PlacementGroupFactory(
        [{"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}]
    )


def max_concurrent_trials(config: Config) -> int:
    """Trials at once: sweep.max_concurrent_trials, else what the cluster holds; ClusterError if that is none.

    Trials beyond what it holds wait in Tune's queue, which is what a cluster grows by.
    """
    if config.sweep.max_concurrent_trials:
        return config.sweep.max_concurrent_trials
    if held := capacity.max_concurrent_trials(config, capacity.alive_nodes()):
        return held
    train = config.train
    raise ClusterError(
        f"the cluster holds no trial of {workers_per_trial(config)} workers with {train.cpus_per_worker} "
        f"CPUs and {train.gpus_per_worker} GPUs each: ask for less, add nodes, or, where the "
        "cluster grows by itself, set sweep.max_concurrent_trials to the trials it may grow to hold."
    )


@contextmanager
def tune_environment() -> Iterator[None]:
    """Ray Tune quiet, and without files of its own, for the time of the block."""
    before = {name: os.environ.get(name) for name in _TUNE_VARIABLES}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(_TUNE_VARIABLES)
    if not log.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def best_trial(trials: list[Trial], config: Config) -> Trial:
    """The trial with the best score; TrainingError where none has one."""
    order = rank_trials(trials, config.train.monitor)
    if order and order[0].history:
        return order[0]
    reasons = [f"trial {trial.number}: {trial.error}" for trial in order if trial.error]
    raise TrainingError(
        f"no trial of sweep {config.run.name!r} gave a score: "
        f"{reasons[0] if reasons else 'sweep.time_budget_s was over before the first epoch.'}"
    )


def winner_bundle(trials: list[Trial], config: Config) -> str | None:
    """The address of the bundle of the best trial; None where there is none yet."""
    winner = best_trial(trials, config)
    made = run_store.read_result(
        run_store.run_storage(trial_config(config, winner.number, winner.values))
    )
    return made.bundle if made else None


def make_bundle(winner: Trial, config: Config) -> str:
    """Make the bundle of a trial that was trained, or stopped; its address."""
    settings = trial_config(config, winner.number, winner.values)
    # In a worker, because the driver does without TensorFlow.
    task = ray.remote(num_cpus=config.train.cpus_per_worker)(finalize_trial_run)
    return ray.get(task.remote(settings.model_dump(mode="json"), host_info()["commit"]))


def finalize_trial_run(settings: Mapping[str, Any], commit: str | None) -> str:
    """Make the bundle of a run as far as it was trained; its address."""
    from trainer.training.finalize import finalize_run

    config = Config.model_validate(settings)
    run = run_store.run_storage(config)
    return finalize_run(run, config, run_store.read_history(run), commit).bundle


def sync_winner_history(config: Config, ledger: TrialStore) -> None:
    """Record what the winner's bundle was chosen from and Tune was not told of any more.

    A worker group trains on for seconds after its trial was stopped.
    """
    winner = best_trial(ledger.trials, config)
    made = run_store.read_result(
        run_store.run_storage(trial_config(config, winner.number, winner.values))
    )
    assert made, "the winner's run is concluded"
    for row in made.history:
        ledger.log_epoch(winner.number, row)


def finalize_sweep(
    store: Storage, config: Config, trials: list[Trial], version: Version
) -> SweepResult:
    """Write what a sweep found: leaderboard, plots, the winner's settings, and sweep.json last."""
    monitor = config.train.monitor
    order = rank_trials(trials, monitor)
    winner = order[0]
    best = winner.best(monitor)
    assert best, "a winner has a score"
    report.write_report(store, config, order)
    store.write("winner.toml", winner_toml(config, winner).encode())
    facts = {
        "winner": winner.number,
        "run": winner.run,
        "values": winner.values,
        "monitor": monitor,
        "score": best[monitor],
        "epoch": best["epoch"],
        "bundle": version.bundle,
        "version": f"{version.name}@{version.version}",
        "fingerprint": version.fingerprint,
        "environment": host_info(),
    }
    store.write(RECORD, json.dumps(facts, indent=2).encode())
    return SweepResult(store.url, tuple(order), winner, best[monitor], version)


def winner_toml(config: Config, winner: Trial) -> str:
    """The winner's settings as a TOML file whose training gives its score again."""
    settings = trial_config(config, winner.number, winner.values)
    named = settings.with_values({"run.name": winner_name(config)})
    return report.provenance(config, winner, settings.fingerprint()) + to_toml(named)


def winner_name(config: Config) -> str:
    """The name of a run of the winner's settings; its trial's own run exists already."""
    return f"{config.run.name}-winner"


def read_leaderboard(config: Config) -> list[Trial]:
    """The trials of a sweep so far, best first; TrainingError where it was never begun."""
    store = sweep_storage(config)
    if not store.exists(CONFIG):
        raise TrainingError(
            f"there is no sweep {config.run.name!r} in {store.url}: begin it with "
            "`python -m tuning run`."
        )
    return rank_trials(read_trials(store), config.train.monitor)
