"""What the process of a trial does: train one network and report its epochs to Ray Tune.

A trial is a run like any other, named <sweep>-<number>, so an interrupted one continues from its
last epoch. Trained in this process it leaves no bundle, as only the winner of a sweep needs one; a
worker group makes one when it has trained to its end.
"""

import os
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ray import tune

from contract.config import Config, Scalar
from contract.errors import UserError
from trainer.data.dataset_index import Dataset
from trainer.training import launcher, run_store
from trainer.training.checkpoints import EpochMetrics

if TYPE_CHECKING:
    from trainer.training.model_cache import ModelCache

# Ray waits this long for a stopped trial's thread before it reuses the process, and drops the
# trial that would have been next without a word where the thread takes longer; 2 by default.
_UNWIND_S = 300

Report = Callable[[EpochMetrics], None]


def trial_config(config: Config, number: int, values: Mapping[str, Scalar]) -> Config:
    """The settings of a trial; ConfigError where its values do not go together."""
    changed = {**values, "run.name": run_name(config, number)}
    if config.sweep.num_workers is not None:
        changed["train.num_workers"] = config.sweep.num_workers
    return config.with_values(changed)


def run_name(config: Config, number: int) -> str:
    """The name of a trial's run."""
    return f"{config.run.name}-{number:04d}"


def train_trial(
    trial_spec: Mapping[str, Any], settings: Mapping[str, Any], slices: Dataset
) -> None:
    """Ray Tune's trainable.

    order: {"number": 3, "values": {…}}; settings: the sweep's Config as plain values. An error is
    reported as a result: raised, it would cost the process, and TensorFlow with it.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(_UNWIND_S)
    config = Config.model_validate(settings)
    monitor = config.train.monitor

    def report(row: EpochMetrics) -> None:
        tune.report({"epoch": row["epoch"], "score": row[monitor], "row": dict(row)})

    try:
        chosen = trial_config(config, trial_spec["number"], trial_spec["values"])
        # A trial may have waited for room until the time budget was spent: told of an epoch 0,
        # which is before every rung of ASHA, Tune ends it here.
        tune.report({"epoch": 0, "score": 0.0})
        # Nobody watches a trial's pictures; a run of the winner's settings draws them.
        train_run(chosen.with_values({"train.preview_images": 0}), slices, report)
    except Exception as error:
        tune.report(
            {
                "epoch": 0,
                "score": 0.0,
                "failed": failure_message(error),
                "trace": failure_traceback(error),
            }
        )


def train_run(config: Config, slices: Dataset, report: Report) -> None:
    """Train a trial's run to its end; the epochs it has already are reported first."""
    place = run_store.run_storage(config)
    for row in run_store.read_history(place):
        report(row)
    if config.train.num_workers > 1:
        train_distributed(config, slices, report)
    else:
        train_in_process(config, slices, report)


def train_in_process(config: Config, slices: Dataset, report: Report) -> None:
    """Train in this process, in a network of an earlier trial where their graphs are the same."""
    from trainer.training.train_loop import WorkerContext, train

    place = run_store.run_storage(config)
    run_store.create_run(place, config, slices)
    train(config, slices, place, WorkerContext(report_epoch=report, model_cache=model_cache()))


@cache
def model_cache() -> "ModelCache":
    """The networks of this process's trials."""
    from trainer.training.model_cache import ModelCache

    return ModelCache()


def train_distributed(config: Config, slices: Dataset, report: Report) -> None:
    """Train on a worker group of the trial's own, which ends with this process."""
    place = run_store.run_storage(config)
    told = len(run_store.read_history(place))

    def tell(rows: tuple[EpochMetrics, ...]) -> None:
        nonlocal told
        for row in rows[told:]:
            report(row)
            told += 1

    def watch(done: int, total: int | None, note: str) -> None:
        # An epoch is in the history as soon as its checkpoint is whole; reading it costs a
        # listing, so only where the steps done say that there is a new one.
        if total and done * config.train.epochs // total > told:
            tell(run_store.read_history(place))

    tell(launcher.run_training(config, watch, slices).history)


def failure_message(error: BaseException) -> str:
    """Why a trial failed, in a sentence."""
    if isinstance(error, UserError):
        return str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def failure_traceback(error: BaseException) -> str | None:
    """The stack of an error that the user did not cause."""
    if isinstance(error, UserError):
        return None
    return "".join(traceback.format_exception(error))
