"""The folds of a cross-validation, trained in parallel on what the cluster holds.

Each fold is a run of its own, <run.name>-fold1 and so on, trained as `segfleet train` trains it. It
resumes like any run; a finished one is not trained again. Its bundle is evaluated on the patients
of the fold, which it was not trained on.
"""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from cluster import resources
from cluster.connection import ray_session
from cluster.placement_groups import orphan_cleanup
from cluster.ray_internals import start_autoscaling_coordinator
from contract.bundle import MANIFEST
from contract.config import Config
from contract.errors import BundleError, ConfigError, TrainingError, UserError
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage, open_storage
from trainer.cross_validation.fold_progress import FoldProgress
from trainer.cross_validation.fold_settings import fold_configs, fold_name, named_fold
from trainer.cross_validation.results import CrossValidation, Fold, write_results
from trainer.data.dataset_index import Dataset, prepare_dataset
from trainer.training import launcher, run_store
from trainer.training.fit_thread import STOP_TIMEOUT_S
from trainer.training.run_lease import run_lease
from trainer.training.start_from import pin_start_from

log = logging.getLogger(__name__)

_POLL_INTERVAL_S = 1.0
_CANCEL_TIMEOUT_S = 10.0


class FoldRun(NamedTuple):
    """The settings and the slices of a fold."""

    config: Config
    dataset: Dataset

    @property
    def number(self) -> int:
        """The number of the fold, from 1."""
        return self.config.data.fold


def results_storage(config: Config) -> Storage:
    """Where the results of the cross-validation of these settings are stored."""
    return open_storage(config.storage.root).child(f"cross_validations/{config.run.name}")


def prepare_folds(config: Config, on_progress: ProgressCallback = no_progress) -> list[FoldRun]:
    """Check the slices, and that every fold can be trained on them; UserError names the fold."""
    if config.predict.tune_on_validation:
        raise ConfigError(
            "predict.tune_on_validation = true chooses settings on the patients that a fold is "
            "evaluated on, so its metrics would be too good: set it to false, and tune the folds "
            "afterwards with `segfleet tune-folds`."
        )
    root = open_storage(config.storage.root)
    runs = []
    for each in fold_configs(pin_start_from(config, results_storage(config))):
        dataset = prepare_dataset(each.data, each.run.seed, root, on_progress)
        with named_fold(each):
            run_store.check_resumable(run_store.run_storage(each), each, dataset)
        runs.append(FoldRun(each, dataset))
    return runs


def prepare_trained_folds(
    config: Config, on_progress: ProgressCallback = no_progress
) -> list[FoldRun]:
    """The folds of a finished cross-validation, with the settings [predict] of their training.

    Raises:
        BundleError: There is no such cross-validation, or a fold has no bundle yet.
        ConfigError: It was started with other settings.
        UserError: As for prepare_folds.
    """
    folds, storage = fold_configs(config), results_storage(config)
    name = f"cross-validation {config.run.name!r}"
    started = run_store.read_started_config(storage)
    if started is None:
        raise BundleError(
            f"there is no {name} in {storage.url}: run `segfleet cross-validate` with these "
            "settings first, or set run.name to that of a finished one."
        )
    pinned = pin_start_from(config, storage)
    trained = pinned.model_copy(update={"predict": started.predict})
    if changed := run_store.changed_settings(
        started.training_settings(), trained.training_settings()
    ):
        raise ConfigError(
            f"{name} in {storage.url} was trained with other settings ({'; '.join(changed)}): "
            "restore those, or set run.name to that of another cross-validation."
        )
    missing = [
        each.data.fold
        for each in folds
        if not run_store.run_storage(each).child("bundle").exists(MANIFEST)
    ]
    if missing:
        raise BundleError(
            f"{name} is not finished: fold {missing[0]} of {len(folds)} has no bundle in "
            f"{run_store.run_storage(folds[missing[0] - 1]).url}; run `segfleet cross-validate` "
            "with the same settings to its end first."
        )
    return prepare_folds(trained, on_progress)


def cross_validate(
    config: Config,
    runs: Sequence[FoldRun],
    on_progress: ProgressCallback = no_progress,
    *,
    ensemble: bool = True,
) -> CrossValidation:
    """Train and evaluate a network for each fold, and write one report of all patients.

    Args:
        config: The settings; data.folds is the number of folds. As many folds train at the same
            time as the cluster holds, or sweep.max_concurrent_trials.
        runs: The folds, from prepare_folds.
        on_progress: Called with finished steps, steps in total, and a note.
        ensemble: Write a bundle whose probabilities are the means of those of all folds.

    Returns:
        The metrics of every patient, by the run that was not trained on the patient.

    Raises:
        UserError: A fold cannot be trained or evaluated; the message names it. What the other folds
            have finished is kept.

    Example:
        >>> config = load_config("configs/demo.toml", data={"folds": 4})
        >>> cross_validate(config, prepare_folds(config)).estimate_of("dice").interval
    """
    root, storage = open_storage(config.storage.root), results_storage(config)
    # With the digest of the bundle that the folds start from.
    config = config.with_values({"train.start_from": runs[0].config.train.start_from})
    dataset = runs[0].dataset
    name = f"cross-validation {config.run.name!r}"
    run_store.check_same_settings(
        name, storage, config, dataset, Config.training_settings, is_empty=False
    )
    with run_lease(root, "cross-validation", config.run.name):
        # A worker group that is lost must not keep the resources of the next fold.
        with ray_session(config.cluster) as session, orphan_cleanup():
            if session.is_local:
                launcher.check_resources(config.train)
                start_autoscaling_coordinator()
            run_store.write_run_metadata(storage, config, dataset)
            _Training(config, runs, on_progress).run()
        folds = [_evaluate(each) for each in runs]
        bundle = _write_ensemble(folds, config.run.name, storage) if ensemble else None
        result = CrossValidation(storage.url, folds, bundle, config.run.seed)
        write_results(result, config, storage)
    return result


class _CancelledError(Exception):
    """Ends a fold whose cross-validation has ended."""


@dataclass
class _Training:
    """The training of all folds, each in a thread, as many at a time as the cluster holds."""

    config: Config
    runs: Sequence[FoldRun]
    on_progress: ProgressCallback
    threads: list[threading.Thread] = field(default_factory=list)
    ended: "queue.Queue[tuple[FoldRun, BaseException | None]]" = field(default_factory=queue.Queue)
    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: FoldProgress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = FoldProgress(len(self.runs))

    def run(self) -> None:
        """Train all folds; TrainingError names those that failed."""
        waiting, running, finished = list(self.runs), 0, 0
        errors: list[str] = []
        try:
            while waiting or running:
                while waiting and running < self._limit():
                    self._start(waiting.pop(0))
                    running += 1
                try:
                    fold, error = self.ended.get(timeout=_POLL_INTERVAL_S)
                except queue.Empty:
                    pass
                else:
                    running -= 1
                    finished += error is None
                    if error is not None:
                        errors.append(_describe(fold, error))
                self._report(finished)
        finally:
            self._cancel()
        if errors:
            raise TrainingError(
                f"{' '.join(errors)} Finished epochs are kept; the same command continues with "
                "them."
            )

    def _limit(self) -> int:
        """Folds at a time: at least one, for which a cluster may grow."""
        if self.config.sweep.max_concurrent_trials:
            return self.config.sweep.max_concurrent_trials
        request = resources.training_request(self.config.train)
        return max(1, resources.max_placements(request, resources.alive_nodes()) // request.count)

    def _start(self, fold: FoldRun) -> None:
        name = f"fold {fold.number}"
        thread = threading.Thread(target=self._train, args=(fold,), name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _train(self, fold: FoldRun) -> None:
        try:
            launcher.run_training(fold.config, partial(self._note_steps, fold), fold.dataset)
        except BaseException as error:
            self.ended.put((fold, error))
        else:
            self.ended.put((fold, None))

    def _cancel(self) -> None:
        """End the folds that still train, before this process disconnects from Ray."""
        self.cancelled.set()
        # A fold notices it at its next poll.
        deadline = time.monotonic() + STOP_TIMEOUT_S + _CANCEL_TIMEOUT_S
        for thread in filter(threading.Thread.is_alive, self.threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _note_steps(self, fold: FoldRun, done: int, total: int | None, note: str) -> None:
        if self.cancelled.is_set():
            raise _CancelledError
        if total:
            self.progress.set(fold.number, done, total)

    def _report(self, finished: int) -> None:
        note = f"{finished} of {len(self.runs)} folds are trained"
        self.on_progress(*self.progress.sums(), note)


def _describe(fold: FoldRun, error: BaseException) -> str:
    """What went wrong in a fold; an error that is not a UserError is raised."""
    if not isinstance(error, UserError):
        raise error
    log.warning("fold %d: %s", fold.number, error)
    return f"{fold_name(fold.config)}: {error}"


def _evaluate(fold: FoldRun) -> Fold:
    """Evaluate the bundle of a fold on its validation patients, as `segfleet evaluate` does."""
    from trainer.evaluation.bundle_config import report_storage
    from trainer.evaluation.evaluate import evaluate
    from trainer.evaluation.report import write_report

    config, dataset = fold
    run = run_store.run_storage(config)
    bundle = run.child("bundle")
    destination = report_storage(bundle, dataset, "valid", None)
    evaluation = evaluate(bundle, dataset, "valid", config.data, config.predict, destination)
    write_report(
        bundle,
        evaluation,
        config,
        destination,
        is_phantom=config.data.source == "phantom",
    )
    return Fold(
        fold.number,
        run.url,
        bundle.url,
        destination.url,
        evaluation.table(),
        evaluation.distance_unit,
    )


def _write_ensemble(folds: Sequence[Fold], name: str, storage: Storage) -> str:
    """Write the ensemble of all folds; returns its address."""
    from trainer.export.ensemble import update_ensemble

    members = [open_storage(fold.bundle) for fold in folds]
    return update_ensemble(members, name, storage.child("bundle"))
