"""Settings of the prediction, chosen by the Dice of the patients of all folds.

Every patient is predicted by the network of the fold, which was not trained on the patient, so the
choice is over many more patients than the valid split of one training has. The ensemble of the
folds gets the settings that are best for all of them.

The Dice with these settings is slightly too good, because they were chosen on the same patients.
They are therefore chosen once more for each fold, on the patients of the other folds alone, and the
fold is measured with these (nested cross-validation).
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import tf_keras as keras

from contract import bundle as bundles
from contract.bundle import Manifest, TriedSetting
from contract.config import Config, Predict
from contract.config.loader import load_config
from contract.progress import ProgressCallback, no_progress
from contract.storage import LocalStorage, Storage
from contract.temp_folders import folder_prefix
from trainer.cross_validation.fold_progress import FoldProgress
from trainer.cross_validation.fold_settings import named_fold
from trainer.cross_validation.folds import FoldRun
from trainer.evaluation.predicted_volumes import check_temporary_space
from trainer.evaluation.prediction_tuning import (
    Step,
    ValidationSplit,
    choose_settings,
    log_chosen,
    replace_predict,
    reset_settings,
    tuning_steps,
)
from trainer.export.ensemble import export_ensemble
from trainer.export.prediction_settings import changed_metadata, load_model
from trainer.export.saved_model import export_bundle
from trainer.training import run_store

MeasureDice = Callable[[Predict], Mapping[str, float]]
"""Returns the Dice of each patient with some settings."""


class TunedFolds(NamedTuple):
    """The result of tune_folds."""

    manifest: Manifest
    """That of the ensemble; tried_settings is everything that was tried."""
    dice: float
    """Mean Dice of the patients of all folds with the chosen settings; slightly too good."""
    nested_dice: float
    """The same, each fold with the settings that were chosen on the other folds."""


class _Progress:
    """The predicted slices of all folds together."""

    def __init__(self, on_progress: ProgressCallback, num_folds: int) -> None:
        self._on_progress, self._slices = on_progress, FoldProgress(num_folds)
        self._num_folds, self.is_nested = num_folds, False

    def report(self, fold: int, done: int, total: int | None, _: str) -> None:
        """Called by the split of a fold."""
        self._slices.set(fold, done, total or done)
        slices, total = self._slices.sums()
        if self.is_nested:
            # How many are predicted again depends on what is chosen.
            self._on_progress(slices, None, "nested cross-validation")
        else:
            self._on_progress(slices, total, f"tuning the prediction on {self._num_folds} folds")


class _Member(NamedTuple):
    """The bundle of a fold."""

    model: keras.Model
    config: Config
    manifest: Manifest


def tune_folds(
    runs: Sequence[FoldRun],
    name: str,
    destination: Storage,
    batch_size: int,
    on_progress: ProgressCallback = no_progress,
) -> TunedFolds:
    """Write the ensemble of the folds with settings [predict] chosen on the patients of all folds.

    Args:
        runs: The folds of a finished cross-validation, from prepare_trained_folds.
        name: The name in the manifest of the ensemble.
        destination: Where the ensemble is written; the bundles of the folds stay as they are.
        batch_size: Slices given to a network at once, also by the ensemble (predict.batch_size).
        on_progress: Called with predicted slices, slices in total, and a note.

    Raises:
        BundleError: The bundle of a fold is damaged, or there is a bundle at the destination.
        StorageError: A slice or a bundle cannot be read, the new one cannot be written, or the
            temporary folder has too little space.
        DataError: A slice cannot be decoded.

    Example:
        >>> config = load_config("configs/demo.toml", data={"folds": 4})
        >>> runs = prepare_trained_folds(config)
        >>> tune_folds(runs, "tuned", open_storage("tuned"), batch_size=8).nested_dice
    """
    bundles.check_no_bundle(destination)
    members = [_load(run, batch_size) for run in runs]
    predict, steps = members[0].config.predict, tuning_steps(members[0].config)
    progress = _Progress(on_progress, len(runs))
    with ExitStack() as stack:
        splits = [
            stack.enter_context(
                ValidationSplit(
                    member.model,
                    member.config,
                    member.manifest.intensity_scaling,
                    run.dataset,
                    partial(progress.report, run.number),
                )
            )
            for run, member in zip(runs, members, strict=True)
        ]
        check_temporary_space(sum(split.num_bytes for split in splits))
        measures = [split.measure for split in splits]
        chosen, dice, tried = choose_settings(predict, steps, _mean_dice(measures))
        log_chosen(tried)
        progress.is_nested = True
        nested = compute_nested_dice(predict, steps, measures)
    return TunedFolds(_export(members, chosen, tried, name, destination), dice, nested)


def compute_nested_dice(
    predict: Predict, steps: Sequence[Step], folds: Sequence[MeasureDice]
) -> float:
    """The mean Dice of all patients, each fold with settings chosen on the other folds.

    The choice starts from the defaults: what is configured may have been chosen on the same
    patients, and would be kept if nothing is better by more than MIN_GAIN.

    Args:
        predict: The configured settings.
        steps: As for `choose_settings`.
        folds: Each returns the Dice of the patients of a fold with some settings.
    """
    start = reset_settings(predict, steps)
    nested: list[float] = []
    for index, measure in enumerate(folds):
        others = [*folds[:index], *folds[index + 1 :]]
        nested += measure(choose_settings(start, steps, _mean_dice(others))[0]).values()
    return fmean(nested)


def _mean_dice(folds: Sequence[MeasureDice]) -> Callable[[Predict], float]:
    return lambda predict: fmean(dice for measure in folds for dice in measure(predict).values())


def _load(run: FoldRun, batch_size: int) -> _Member:
    with named_fold(run.config):
        folder = bundles.fetch(run_store.run_storage(run.config).child("bundle"))
    config = load_config(folder / "config.toml", [f"predict.batch_size={batch_size}"])
    manifest = bundles.read_manifest(LocalStorage(folder))
    return _Member(load_model(folder, config), config, manifest)


def _export(
    members: Sequence[_Member],
    predict: Predict,
    tried: Sequence[TriedSetting],
    name: str,
    destination: Storage,
) -> Manifest:
    """Write the ensemble of the members with other settings."""
    with tempfile.TemporaryDirectory(prefix=folder_prefix("folds")) as temporary:
        tuned = []
        for member in members:
            config = replace_predict(member.config, predict)
            bundle = LocalStorage(Path(temporary) / member.manifest.name)
            metadata = changed_metadata(member.manifest, config, tried)
            export_bundle(member.model, config, metadata, bundle)
            tuned.append(bundle)
        return export_ensemble(tuned, name, destination)
