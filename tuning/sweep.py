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
from cluster.connection import connected
from cluster.placement_groups import freed
from contract.config import Config
from contract.config.loader import dump
from contract.errors import ClusterError, TrainingError
from contract.host_info import environment
from contract.registry import Registry, Version
from contract.storage import Storage, open_storage
from trainer.data import dataset_index
from trainer.data.dataset_index import Dataset
from trainer.training import run_store
from tuning import asha, report, search_space
from tuning.scheduler import Draws, Ends, Notes, Steering
from tuning.trainable import run_name, train_trial, trial_config
from tuning.trial_store import Ledger, Trial, ranked, read

log = logging.getLogger(__name__)

CONFIG, RECORD = "config.toml", "sweep.json"

# Settings of [sweep] that say how far a sweep goes, and may change when it is continued.
_EXTENT = {"trials", "time_budget_s", "parallel", "workers"}
# Tune's own tables, log files and error texts say again what the ledger says; Ctrl-C is ours.
_TUNE_VARIABLES = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}

Watch = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class Result:
    """A finished sweep: where it lies, its trials (best first) and its registered winner."""

    place: str
    trials: tuple[Trial, ...]
    winner: Trial
    score: float
    version: Version


def _unwatched(done: int, total: int | None, note: str) -> None:
    """For a caller who does not watch."""


def run(config: Config, watch: Watch = _unwatched) -> Result:
    """Carry out, or continue, the sweep of these settings, and register its winner's bundle.

    watch is called with (trials done, trials in all, a note). Raises UserError where the sweep
    cannot be carried out, or no trial gave a score.
    """
    search_space.check(config)
    # What would fail every trial, or the sweep when all of them are done, is told before the first.
    trial_config(config, config.sweep.trials, {})
    config.with_values({"run.name": winner_name(config)})
    store = place(config)
    slices = dataset_index.prepare(config.data, config.run.seed, open_storage(config.storage.root))
    refuse_others(store, config, slices)
    ledger = Ledger(store)
    bundle = None if left(config, ledger) else bundle_made(ledger.trials, config)
    if bundle is None:
        bundle = carry_out(config, slices, ledger, watch)
    catch_up(config, ledger)
    version = Registry(open_storage(config.storage.root)).register(config.run.name, bundle)
    return conclude(store, config, ledger.trials, version)


def left(config: Config, ledger: Ledger) -> bool:
    """Whether there may be trials to run."""
    trials, budget = ledger.trials, config.sweep.time_budget_s
    if any(trial.state == "running" for trial in trials):
        return True
    if budget is not None and ledger.now() >= budget:
        return False
    if any(trial.state == "out of time" for trial in trials):
        return True
    drawn = len(trials) >= config.sweep.trials
    return not drawn or bool(asha.promotable(trials, config, idle=True))


def carry_out(config: Config, slices: Dataset, ledger: Ledger, watch: Watch) -> str:
    """Run the trials that are left; the address of the winner's bundle."""
    # The trials that train as worker groups leave something behind where they are stopped.
    tidied = freed() if workers(config) > 1 else nullcontext()
    with connected(config.cluster), tidied:
        if left(config, ledger):
            run_store.note_beginning(place(config), config, slices)
            search(config, slices, ledger, watch)
        return bundle_made(ledger.trials, config) or make_bundle(
            best_of(ledger.trials, config), config
        )


def place(config: Config) -> Storage:
    """Where the sweep of these settings is kept."""
    return open_storage(config.storage.root).at(f"sweeps/{config.run.name}")


def refuse_others(store: Storage, config: Config, slices: Dataset) -> None:
    """TrainingError where a sweep was begun with other settings or slices."""
    called, empty = f"sweep {config.run.name!r}", not read(store)
    run_store.refuse_begun_otherwise(called, store, config, slices, deciding, empty)


def deciding(config: Config) -> dict[str, Any]:
    """The settings that decide the trials, as plain values."""
    sweep = config.sweep.model_dump(mode="json", exclude=_EXTENT, exclude_none=True)
    return {**config.deciding(), "sweep": sweep}


def search(config: Config, slices: Dataset, ledger: Ledger, watch: Watch) -> None:
    """Run every trial that is still to be run."""
    steering = Steering(config, ledger, parallel(config))
    fit(config, slices, steering, watch)
    # A trial whose process was lost after Tune had been told that there are no more.
    while steering.unfinished():
        fit(config, slices, steering, watch)


def fit(config: Config, slices: Dataset, steering: Steering, watch: Watch) -> None:
    """Have Ray Tune run trials until it is told that there are no more."""
    with tune_environment(), tempfile.TemporaryDirectory(prefix="segfleet-tune-") as folder:
        try:
            make_tuner(config, slices, steering, watch, folder).fit()
        except Exception as error:
            if steering.fault:
                raise steering.fault from error
            raise
    steering.left_behind()


def make_tuner(
    config: Config, slices: Dataset, steering: Steering, watch: Watch, folder: str
) -> tune.Tuner:
    """Ray Tune's tuner for these settings; folder: for files that nobody needs afterwards."""
    trainable = tune.with_parameters(
        train_trial, settings=config.model_dump(mode="json"), slices=slices
    )
    return tune.Tuner(
        tune.with_resources(trainable, resources(config)),
        param_space={},
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=Draws(steering),
            max_concurrent_trials=steering.parallel,
            # A process that is used again has TensorFlow imported already; on a GPU only its
            # end gives the memory back, and a worker group ends with it.
            reuse_actors=config.train.gpus_per_worker == 0 and workers(config) == 1,
            trial_name_creator=lambda trial: run_name(config, trial.config["number"]),
            trial_dirname_creator=lambda trial: secrets.token_hex(8),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=folder,
            stop=Ends(steering),
            callbacks=[Notes(steering, lambda: tell(config, steering.ledger.trials, watch))],
            verbose=0,
        ),
    )


def tell(config: Config, trials: list[Trial], watch: Watch) -> None:
    """Tell the watcher how far the sweep is: trials that are over, or at least past a rung."""
    first = asha.first_grant(config)
    done = sum(trial.state != "running" or trial.granted > first for trial in trials)
    watch(done, config.sweep.trials, report.standing(trials, config.train.monitor))


def workers(config: Config) -> int:
    """Training workers of a trial."""
    return config.sweep.workers or config.train.workers


def resources(config: Config) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: its worker, or next to nothing for a group's driver."""
    if workers(config) > 1:
        # A group reserves its own; Tune wants to be asked for something.
        return tune.PlacementGroupFactory([{"memory": 1}])
    train = config.train
    return tune.PlacementGroupFactory(
        [{"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}]
    )


def parallel(config: Config) -> int:
    """Trials at once: sweep.parallel, else what the cluster holds; ClusterError if that is none.

    Trials beyond what it holds wait in Tune's queue, which is what a cluster grows by.
    """
    if config.sweep.parallel:
        return config.sweep.parallel
    if held := capacity.trials_at_once(config, capacity.alive()):
        return held
    train = config.train
    raise ClusterError(
        f"the cluster holds no trial of {workers(config)} workers with {train.cpus_per_worker} "
        f"CPUs and {train.gpus_per_worker} GPUs each: ask for less, add nodes, or, where the "
        "cluster grows by itself, set sweep.parallel to the trials it may grow to hold."
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


def best_of(trials: list[Trial], config: Config) -> Trial:
    """The trial with the best score; TrainingError where none has one."""
    order = ranked(trials, config.train.monitor)
    if order and order[0].history:
        return order[0]
    reasons = [f"trial {trial.number}: {trial.reason}" for trial in order if trial.reason]
    raise TrainingError(
        f"no trial of sweep {config.run.name!r} gave a score: "
        f"{reasons[0] if reasons else 'sweep.time_budget_s was over before the first epoch.'}"
    )


def bundle_made(trials: list[Trial], config: Config) -> str | None:
    """The address of the bundle of the best trial; None where there is none yet."""
    winner = best_of(trials, config)
    made = run_store.result(run_store.place(trial_config(config, winner.number, winner.values)))
    return made.bundle if made else None


def make_bundle(winner: Trial, config: Config) -> str:
    """Make the bundle of a trial that was trained, or stopped; its address."""
    settings = trial_config(config, winner.number, winner.values)
    # In a worker, because the driver does without TensorFlow.
    task = ray.remote(num_cpus=config.train.cpus_per_worker)(close_run)
    return ray.get(task.remote(settings.model_dump(mode="json"), environment()["commit"]))


def close_run(settings: Mapping[str, Any], commit: str | None) -> str:
    """Make the bundle of a run as far as it was trained; its address."""
    from trainer.training.finalize import conclude

    config = Config.model_validate(settings)
    run = run_store.place(config)
    return conclude(run, config, run_store.history(run), commit).bundle


def catch_up(config: Config, ledger: Ledger) -> None:
    """Record what the winner's bundle was chosen from and Tune was not told of any more.

    A worker group trains on for seconds after its trial was stopped.
    """
    winner = best_of(ledger.trials, config)
    made = run_store.result(run_store.place(trial_config(config, winner.number, winner.values)))
    assert made, "the winner's run is concluded"
    for row in made.history:
        ledger.note(winner.number, row)


def conclude(store: Storage, config: Config, trials: list[Trial], version: Version) -> Result:
    """Write what a sweep found: leaderboard, plots, the winner's settings, and sweep.json last."""
    monitor = config.train.monitor
    order = ranked(trials, monitor)
    winner = order[0]
    best = winner.best(monitor)
    assert best, "a winner has a score"
    report.write(store, config, order)
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
        "environment": environment(),
    }
    store.write(RECORD, json.dumps(facts, indent=2).encode())
    return Result(store.url, tuple(order), winner, best[monitor], version)


def winner_toml(config: Config, winner: Trial) -> str:
    """The winner's settings as a TOML file whose training gives its score again."""
    settings = trial_config(config, winner.number, winner.values)
    named = settings.with_values({"run.name": winner_name(config)})
    return report.provenance(config, winner, settings.fingerprint()) + dump(named)


def winner_name(config: Config) -> str:
    """The name of a run of the winner's settings; its trial's own run exists already."""
    return f"{config.run.name}-winner"


def recorded(config: Config) -> list[Trial]:
    """The trials of a sweep so far, best first; TrainingError where it was never begun."""
    store = place(config)
    if not store.exists(CONFIG):
        raise TrainingError(
            f"there is no sweep {config.run.name!r} in {store.url}: begin it with "
            "`python -m tuning run`."
        )
    return ranked(read(store), config.train.monitor)
