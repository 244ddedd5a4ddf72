"""What the process of a trial runs: train one network and report its epochs to Ray Tune.

A trial is a run like any other, named <sweep>-<number>, so an interrupted trial resumes after its
last epoch. A trial that trains in this process writes no bundle, because only the best trial of a
sweep needs one; a worker group writes one when it has trained to the end.

With sweep.cross_validate a trial is a run for each fold, named <sweep>-<number>-fold1 and so on,
and its score is their mean. The bundle of the best trial is the ensemble of its folds.
"""

import gc
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from ray import tune

from cluster.connection import process_temp_folder
from contract.config import Config, SettingValue, Train
from contract.errors import UserError, first_line
from contract.storage import Storage
from trainer.components import lr_schedule
from trainer.cross_validation.fold_settings import fold_configs
from trainer.data.dataset_index import Dataset
from trainer.training import launcher, run_store
from trainer.training.loggers.history import EpochMetrics
from tuning import asha
from tuning.fold_scores import mean_history

if TYPE_CHECKING:
    from trainer.training.model_cache import ModelCache

# Ray waits this long for the thread of a stopped trial before it reuses the process. If the thread
# takes longer, Ray drops the next trial without a message. The default is 2 s.
_THREAD_TIMEOUT_S = 300

ReportEpoch = Callable[[EpochMetrics], None]
ReportHistory = Callable[[Sequence[EpochMetrics]], None]


def trial_config(config: Config, number: int, values: Mapping[str, SettingValue]) -> Config:
    """The settings of a trial; ConfigError if its values are incompatible."""
    # A trial may have a network that the Antillia projects do not have. No trial writes the file.
    fixed = {"run.name": run_name(config, number), "train.antillia_weights": "none"}
    changes = {**values, **fixed}
    if config.sweep.num_workers is not None:
        changes["train.num_workers"] = config.sweep.num_workers
    return config.with_values(changes)


def run_name(config: Config, number: int) -> str:
    """The name of a trial's run."""
    return f"{config.run.name}-{number:04d}"


def trial_runs(config: Config) -> list[Config]:
    """The settings of the runs of a trial: its own, or with sweep.cross_validate those of folds."""
    return fold_configs(config) if config.sweep.cross_validate else [config]


def train_trial(
    trial_spec: Mapping[str, Any], settings: Mapping[str, Any], datasets: Sequence[Dataset]
) -> None:
    """Ray Tune's trainable.

    An error is reported as a result. Raised, it would cost the process, and the next trial would
    have to import TensorFlow again.

    Args:
        trial_spec: {"number": 3, "values": {"train.learning_rate": 1e-3}}.
        settings: The Config of the sweep as plain values.
        datasets: The prepared slices, or those of each fold.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(_THREAD_TIMEOUT_S)
    config = Config.model_validate(settings)
    monitor = config.train.monitor

    def report_history(epochs: Sequence[EpochMetrics]) -> None:
        rows = [dict(metrics) for metrics in epochs]
        tune.report({"epoch": rows[-1]["epoch"], "score": rows[-1][monitor], "history": rows})

    def offer_stop() -> None:
        # In epoch 0, which is below every rung of ASHA, Ray Tune ends a trial only if the time
        # budget is used up.
        tune.report({"epoch": 0, "score": 0.0})

    try:
        chosen = trial_config(config, trial_spec["number"], trial_spec["values"])
        # A trial may have waited for resources until the time budget was used up.
        offer_stop()
        # The previews of trials are not needed; a run with the best trial's settings draws them.
        quiet = chosen.with_values({"train.preview_images": 0})
        if config.sweep.cross_validate:
            train_folds(quiet, datasets, report_history, offer_stop)
        else:
            train_run(quiet, datasets[0], lambda metrics: report_history([metrics]))
    except Exception as error:
        failure = {"error": failure_message(error), "traceback": failure_traceback(error)}
        tune.report({"epoch": 0, "score": 0.0, **failure})


def train_run(config: Config, dataset: Dataset, report_epoch: ReportEpoch) -> None:
    """Train the run of a trial to its end; epochs that it already has are reported first."""
    for metrics in run_store.read_history(run_store.run_storage(config)):
        report_epoch(metrics)
    if config.train.num_workers > 1:
        train_distributed(config, dataset, report_epoch)
    else:
        train_in_process(config, dataset, report_epoch)


def train_in_process(config: Config, dataset: Dataset, report_epoch: ReportEpoch) -> None:
    """Train in this process, in the network of an earlier trial if their graphs are equal."""
    from trainer.training.train_loop import WorkerContext, train

    run = run_store.run_storage(config)
    run_store.create_run(run, config, dataset)
    reopen(run, config.train)
    ctx = WorkerContext(report_epoch=report_epoch, model_cache=model_cache())
    with process_temp_folder():
        train(config, dataset, run, ctx)


def reopen(run: Storage, train: Train) -> None:
    """Make a run unfinished that was exported as the best one so far, and that trains on."""
    scores = [metrics[train.monitor] for metrics in run_store.read_history(run)]
    if run.exists(run_store.RUN_RECORD) and not lr_schedule.is_finished(scores, train):
        run.delete(run_store.RUN_RECORD)


def train_folds(
    config: Config,
    datasets: Sequence[Dataset],
    report_history: ReportHistory,
    offer_stop: Callable[[], None],
) -> None:
    """Train the runs of all folds in this process, up to one rung after another.

    The means over the folds are reported when all of them have reached a rung. Before that a sweep
    has no decision to make, and each fold has the process to itself until then.

    Args:
        config: The settings of the trial.
        datasets: The slices of each fold.
        report_history: Called with the mean metrics of the epochs up to a rung.
        offer_stop: Called after each fold; may end the trial by raising.
    """
    runs = trial_runs(config)

    def histories() -> list[tuple[EpochMetrics, ...]]:
        return [run_store.read_history(run_store.run_storage(each)) for each in runs]

    reported = 0
    for rung in asha.all_rungs(config.sweep, config.train):
        for each, dataset, history in zip(runs, datasets, histories(), strict=True):
            if len(history) < rung:
                _train_until(each, dataset, rung)
                offer_stop()
        means = mean_history(histories())
        if means[reported:]:
            report_history(means[reported:])
            reported = len(means)


class _RungReachedError(Exception):
    """Ends the training of a fold that has trained up to a rung."""


def _train_until(config: Config, dataset: Dataset, epochs: int) -> None:
    """Train a run, from its latest checkpoint, until it has this many epochs."""

    def stop(metrics: EpochMetrics) -> None:
        if epochs <= metrics["epoch"] < config.train.epochs:
            raise _RungReachedError

    with suppress(_RungReachedError):
        train_in_process(config, dataset, stop)
    # The network of this fold, if it is not kept for the next one, is freed before that is built.
    gc.collect()


@cache
def model_cache() -> "ModelCache":
    """The compiled networks of this process's trials."""
    from trainer.training.model_cache import ModelCache

    return ModelCache()


def train_distributed(config: Config, dataset: Dataset, report_epoch: ReportEpoch) -> None:
    """Train on a worker group of the trial's own, which ends with this process."""
    run = run_store.run_storage(config)
    reopen(run, config.train)
    reported = len(run_store.read_history(run))

    def report_new(history: tuple[EpochMetrics, ...]) -> None:
        nonlocal reported
        for metrics in history[reported:]:
            report_epoch(metrics)
            reported += 1

    def on_progress(done: int, total: int | None, note: str) -> None:
        # An epoch is in the history as soon as its checkpoint is complete. Reading the history
        # costs a listing, so it is read only if the number of steps implies a new epoch.
        if total and done * config.train.epochs // total > reported:
            report_new(run_store.read_history(run))

    report_new(launcher.run_training(config, on_progress, dataset).history)


def failure_message(error: BaseException) -> str:
    """Why a trial failed, in one sentence."""
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def failure_traceback(error: BaseException) -> str | None:
    """The stack trace of an error that was not a mistake of the user."""
    if isinstance(error, UserError):
        return None
    return "".join(traceback.format_exception(error))
