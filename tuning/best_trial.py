"""The best trial of a sweep: its bundle, and its settings as a TOML file."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import ray

from contract.config import Config
from contract.config.loader import to_toml
from contract.errors import TrainingError
from contract.host_info import host_info
from trainer.training import run_store
from tuning.trainable import trial_config
from tuning.trial_store import Trial, TrialStore, rank_trials


def select_best_trial(trials: list[Trial], config: Config) -> Trial:
    """The trial with the best score; TrainingError if none has a score."""
    ranked = rank_trials(trials, config.train.monitor)
    if ranked and ranked[0].history:
        return ranked[0]
    errors = [f"trial {trial.number}: {trial.error}" for trial in ranked if trial.error]
    raise TrainingError(
        f"no trial of sweep {config.run.name!r} produced a score: "
        f"{errors[0] if errors else 'sweep.time_budget_s was used up before the first epoch.'}"
    )


def find_bundle(trials: list[Trial], config: Config) -> str | None:
    """The address of the bundle of the best trial; None if it was not exported yet."""
    result = _read_result(select_best_trial(trials, config), config)
    return result.bundle if result else None


def export_bundle(trial: Trial, config: Config) -> str:
    """Export the bundle of a trial that has trained or was paused; its address."""
    settings = trial_config(config, trial.number, trial.values)
    # In a Ray task, because the driver does not import TensorFlow.
    task = ray.remote(num_cpus=config.train.cpus_per_worker)(finalize_trial_run)
    return ray.get(task.remote(settings.model_dump(mode="json"), host_info()["commit"]))


def finalize_trial_run(settings: Mapping[str, Any], commit: str | None) -> str:
    """Export the bundle of a run as far as it has trained; its address."""
    from trainer.training.finalize import finalize_run

    config = Config.model_validate(settings)
    run = run_store.run_storage(config)
    return finalize_run(run, config, run_store.read_history(run), commit).bundle


def sync_best_trial_history(config: Config, store: TrialStore) -> None:
    """Record epochs that the best trial's bundle was chosen from and Ray Tune did not report.

    A worker group continues for some seconds after its trial was stopped.
    """
    trial = select_best_trial(store.trials, config)
    result = _read_result(trial, config)
    assert result, "the best trial's run is finalized"
    for metrics in result.history:
        store.log_epoch(trial.number, metrics)


def retraining_name(config: Config) -> str:
    """The name of a run with the best trial's settings; the run of the trial exists already."""
    return f"{config.run.name}-best"


def best_trial_toml(config: Config, trial: Trial) -> str:
    """The best trial's settings as a TOML file; training with it reproduces its score."""
    settings = trial_config(config, trial.number, trial.values)
    renamed = settings.with_values({"run.name": retraining_name(config)})
    return _header(config, trial, settings.fingerprint()) + to_toml(renamed)


def _header(config: Config, trial: Trial, fingerprint: str) -> str:
    """The comment at the top of the best trial's settings: where they come from."""
    host, best = host_info(), trial.best_epoch(config.train.monitor)
    assert best, "the best trial has a score"
    today = datetime.now(UTC).date().isoformat()
    score = f"{config.train.monitor} {best[config.train.monitor]:.4f} at epoch {best['epoch']:.0f}"
    return (
        f"# Best trial of sweep {config.run.name}: trial {trial.number}, {score}, {today}.\n"
        f"# Fingerprint {fingerprint}, commit {host['commit']}, on {host['machine']}.\n"
        "# `segfleet train` with this file retrains it.\n\n"
    )


def _read_result(trial: Trial, config: Config) -> run_store.RunResult | None:
    settings = trial_config(config, trial.number, trial.values)
    return run_store.read_result(run_store.run_storage(settings))
