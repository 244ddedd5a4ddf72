"""The folds of a cross-validation, trained in parallel on what the cluster holds.

Each fold is a run of its own, <run.name>-fold1 and so on, and resumes like any run; a finished one
is not trained again. Its bundle is evaluated on the patients of the fold, which it was not trained
on.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from cluster import resources
from cluster.connection import process_temp_folder, ray_session
from contract.config import Config
from contract.errors import ConfigError, TrainingError, UserError, first_line
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage, open_storage
from trainer.cross_validation.results import CrossValidation, Fold, write_results
from trainer.data.dataset_index import Dataset, prepare_dataset
from trainer.training import launcher, run_store
from trainer.training.run_lease import run_lease

log = logging.getLogger(__name__)

# Counting epochs lists the checkpoints of a run.
_POLL_INTERVAL_S = 5.0


def fold_configs(config: Config) -> list[Config]:
    """The settings of each fold's run; ConfigError without data.folds."""
    if not config.data.folds:
        raise ConfigError("data.folds is 0: set the number of folds, such as data.folds=4.")
    return [
        config.with_values({"data.fold": number, "run.name": f"{config.run.name}-fold{number}"})
        for number in range(1, config.data.folds + 1)
    ]


def cross_validate(
    config: Config,
    on_progress: ProgressCallback = no_progress,
    *,
    ensemble: bool = True,
    max_concurrent: int | None = None,
) -> CrossValidation:
    """Train and evaluate a network for each fold, and write one report of all patients.

    Args:
        config: The settings; data.folds is the number of folds.
        on_progress: Called with finished epochs, epochs in total, and a note.
        ensemble: Write a bundle whose probabilities are the means of those of all folds.
        max_concurrent: Folds trained at the same time; None: as many as the cluster holds.

    Returns:
        The metrics of every patient, by the run that was not trained on the patient.

    Raises:
        UserError: A fold cannot be trained or evaluated; the message names it. The other folds are
            kept, and the same command continues.

    Example:
        >>> result = cross_validate(load_config("configs/demo.toml", data={"folds": 4}))
        >>> result.estimate_of("dice").interval
    """
    configs, root = fold_configs(config), open_storage(config.storage.root)
    storage = root.child(f"cross_validations/{config.run.name}")
    datasets = [prepare_dataset(each.data, each.run.seed, root) for each in configs]
    name = f"cross-validation {config.run.name!r}"
    run_store.check_same_settings(
        name, storage, configs[0], datasets[0], Config.training_settings, is_empty=False
    )
    for each, dataset in zip(configs, datasets, strict=True):
        run_store.check_resumable(run_store.run_storage(each), each, dataset)
    with run_lease(root, "cross-validation", config.run.name):
        with ray_session(config.cluster) as session:
            if session.is_local:
                launcher.check_resources(config.train)
            run_store.write_run_metadata(storage, configs[0], datasets[0])
            progress = _FoldProgress(configs, datasets, on_progress)
            folds = _run_folds(progress, max_concurrent or _placeable_folds(config))
        bundle = _write_ensemble(folds, config.run.name, storage) if ensemble else None
        result = CrossValidation(storage.url, folds, bundle, config.run.seed)
        write_results(result, config, storage)
    return result


def _placeable_folds(config: Config) -> int:
    """The folds that the cluster holds at the same time; at least one, for which it may grow."""
    request = resources.training_request(config.train)
    placements = resources.max_placements(request, resources.alive_nodes())
    return max(1, placements // request.count)


@dataclass
class _FoldProgress:
    """The folds, and how far they are."""

    configs: list[Config]
    datasets: list[Dataset]
    on_progress: ProgressCallback
    folds: dict[int, Fold] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def report(self) -> None:
        """Report the finished epochs of all folds."""
        done = sum(run_store.count_epochs(run_store.run_storage(each)) for each in self.configs)
        total = sum(each.train.epochs for each in self.configs)
        self.on_progress(done, total, f"{len(self.folds)} of {len(self.configs)} folds finished")


def _run_folds(progress: _FoldProgress, limit: int) -> list[Fold]:
    """Train and evaluate all folds, at most so many at the same time."""
    waiting = list(range(len(progress.configs)))
    pending: dict[Any, int] = {}
    while waiting or pending:
        while waiting and len(pending) < limit:
            index = waiting.pop(0)
            config, dataset = progress.configs[index], progress.datasets[index]
            pending[_run_fold.remote(config.model_dump(mode="json"), dataset)] = index
        done, _ = ray.wait(list(pending), timeout=_POLL_INTERVAL_S)
        for task in done:
            index = pending.pop(task)
            _collect(progress, index, task)
        progress.report()
    if progress.errors:
        raise TrainingError(
            f"{progress.errors[0]} The other folds are kept; the same command continues."
        )
    return [progress.folds[index] for index in sorted(progress.folds)]


def _collect(progress: _FoldProgress, index: int, task: Any) -> None:
    """Add the result of a fold, or its error."""
    try:
        fold: Fold | str = ray.get(task)
    except RayError as error:
        fold = f"its process was lost: {first_line(error)}."
    if isinstance(fold, str):
        progress.errors.append(f"fold {index + 1}: {fold}")
        log.warning("fold %d: %s", index + 1, fold)
    else:
        progress.folds[index] = fold


@ray.remote(num_cpus=0)
def _run_fold(settings: Mapping[str, Any], dataset: Dataset) -> Fold | str:
    """Train and evaluate one fold; or the message of a UserError.

    It reserves no CPU: its worker group reserves its own, and the evaluation takes a fraction of
    the time of the training.
    """
    config = Config.model_validate(settings)
    try:
        with process_temp_folder():
            run = launcher.run_training(config, dataset=dataset)
            return _evaluate(config, dataset, open_storage(run.bundle))
    except UserError as error:
        return str(error)


def _evaluate(config: Config, dataset: Dataset, bundle: Storage) -> Fold:
    """Evaluate a bundle on the validation patients of its fold, as `segfleet evaluate` does."""
    from trainer.evaluation.bundle_config import report_storage
    from trainer.evaluation.evaluate import evaluate
    from trainer.evaluation.report import write_report

    destination = report_storage(bundle, dataset, "valid", None)
    evaluation = evaluate(bundle, dataset, "valid", config.data, config.predict, destination)
    write_report(bundle, evaluation, config, destination)
    run = run_store.run_storage(config)
    return Fold(config.data.fold, run.url, bundle.url, destination.url, evaluation.table())


def _write_ensemble(folds: list[Fold], name: str, storage: Storage) -> str:
    """Write the ensemble of all folds, unless it is there; returns its address."""
    from contract import bundle as bundles

    destination = storage.child("bundle")
    if not destination.exists(bundles.MANIFEST):
        from trainer.export.ensemble import export_ensemble

        export_ensemble([open_storage(fold.bundle) for fold in folds], name, destination)
    return destination.url
