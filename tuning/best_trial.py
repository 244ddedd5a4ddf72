"""The best trial of a sweep: its bundle, and its settings as a TOML file."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import ray

from contract.bundle import MANIFEST, member_names, read_manifest
from contract.config import Config
from contract.config.loader import to_toml
from contract.errors import TrainingError
from contract.host_info import host_info
from contract.storage import Storage, open_storage
from trainer.training import run_store
from tuning.fold_scores import mean_history
from tuning.trainable import trial_config, trial_runs
from tuning.trial_store import Trial, TrialStore, rank_trials, sweep_storage

log = logging.getLogger(__name__)


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
    settings = _settings(select_best_trial(trials, config), config)
    results = [_read_result(each) for each in trial_runs(settings)]
    bundles = [result.bundle for result in results if result]
    if len(bundles) < len(results):
        return None
    if not config.sweep.cross_validate:
        return bundles[0]
    ensemble = _ensemble_storage(config)
    members = member_names([open_storage(bundle) for bundle in bundles])
    if ensemble.exists(MANIFEST) and read_manifest(ensemble).members == members:
        return ensemble.url
    return None


def export_bundle(trial: Trial, config: Config) -> str:
    """Export the bundle of a trial that has trained or was paused; its address."""
    # In a Ray task, because the driver does not import TensorFlow.
    task = ray.remote(num_cpus=config.train.cpus_per_worker)(export_trial)
    if config.predict.tune_on_validation:
        log.info("tuning the prediction of trial %d on the validation slices", trial.number)
    settings = _settings(trial, config).model_dump(mode="json")
    return ray.get(task.remote(settings, _ensemble_storage(config).url, host_info()["commit"]))


def export_trial(settings: Mapping[str, Any], ensemble: str, commit: str | None) -> str:
    """Export the bundle of a trial as far as it has trained; its address.

    Args:
        settings: The settings of the trial as plain values.
        ensemble: The address of the ensemble of its folds, if it has any.
        commit: The commit of the code.
    """
    config = Config.model_validate(settings)
    bundles = [finalize_trial_run(each, commit) for each in trial_runs(config)]
    if not config.sweep.cross_validate:
        return bundles[0]
    from trainer.export.ensemble import update_ensemble

    members = [open_storage(bundle) for bundle in bundles]
    return update_ensemble(members, config.run.name, open_storage(ensemble))


def finalize_trial_run(config: Config, commit: str | None) -> str:
    """Export the bundle of a run as far as it has trained; its address."""
    from trainer.training.finalize import finalize_run

    run = run_store.run_storage(config)
    return finalize_run(run, config, run_store.read_history(run), commit).bundle


def sync_best_trial_history(config: Config, store: TrialStore) -> None:
    """Record epochs that the best trial's bundle was chosen from and Ray Tune did not report.

    A worker group continues for some seconds after its trial was stopped.
    """
    trial = select_best_trial(store.trials, config)
    settings = _settings(trial, config)
    results = [_read_result(each) for each in trial_runs(settings)]
    histories = [result.history for result in results if result]
    assert len(histories) == len(results), "the runs of the best trial are finalized"
    for metrics in mean_history(histories):
        store.log_epoch(trial.number, metrics)


def retraining_name(config: Config) -> str:
    """The name of a run with the best trial's settings; the run of the trial exists already."""
    return f"{config.run.name}-best"


def best_trial_toml(config: Config, trial: Trial) -> str:
    """The best trial's settings as a TOML file; training with it reproduces its score."""
    settings = _settings(trial, config)
    renamed = settings.with_values({"run.name": retraining_name(config)})
    return _header(config, trial, settings.fingerprint()) + to_toml(renamed)


def _header(config: Config, trial: Trial, fingerprint: str) -> str:
    """The comment at the top of the best trial's settings: where they come from."""
    host, best = host_info(), trial.best_epoch(config.train.monitor)
    assert best, "the best trial has a score"
    today = datetime.now(UTC).date().isoformat()
    score = f"{config.train.monitor} {best[config.train.monitor]:.4f} at epoch {best['epoch']:.0f}"
    command = "cross-validate" if config.sweep.cross_validate else "train"
    return (
        f"# Best trial of sweep {config.run.name}: trial {trial.number}, {score}, {today}.\n"
        f"# Fingerprint {fingerprint}, commit {host['commit']}, on {host['machine']}.\n"
        f"# `segfleet {command}` with this file retrains it.\n\n"
    )


def _settings(trial: Trial, config: Config) -> Config:
    return trial_config(config, trial.number, trial.values)


def _ensemble_storage(config: Config) -> Storage:
    """Where the ensemble of the folds of the best trial is stored."""
    return sweep_storage(config).child("bundle")


def _read_result(config: Config) -> run_store.RunResult | None:
    return run_store.read_result(run_store.run_storage(config))
