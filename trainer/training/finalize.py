"""The end of a run: the best checkpoint is exported as a bundle, and run.json marks it finished."""

import json
import re
from collections.abc import Sequence

import tf_keras as keras

from contract.bundle import BundleMetadata, ParentBundle, TriedSetting
from contract.config import Config
from contract.errors import TrainingError
from contract.host_info import host_info
from contract.imaging.segmentation_class import SegmentationClass
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage, open_storage
from contract.timestamps import utc_now
from trainer.data.dataset_index import prepare_dataset
from trainer.export import antillia_weights, saved_model
from trainer.export.prediction_settings import prediction_metadata
from trainer.training import checkpoints
from trainer.training.loggers.history import EpochMetrics
from trainer.training.loggers.plots import write_curves
from trainer.training.loggers.run_logger import write_tables
from trainer.training.run_store import (
    RUN_RECORD,
    RunRecord,
    RunResult,
    TrainingDataInfo,
    read_training_data,
)
from trainer.training.start_from import read_parents
from trainer.visualization import image_grid


def finalize_run(
    run: Storage,
    config: Config,
    history: Sequence[EpochMetrics],
    commit: str | None,
    on_progress: ProgressCallback = no_progress,
) -> RunResult:
    """Export the best checkpoint as a bundle and mark the run finished, run.json last.

    on_progress: called while predict.tune_on_validation chooses settings.
    """
    storage = run.child("checkpoints")
    best = checkpoints.best_checkpoint(checkpoints.list_checkpoints(storage), config.train)
    state = checkpoints.load_state(storage, best)
    if state is None:
        raise TrainingError(
            f"the best checkpoint {best.key} in {storage.url} is damaged: delete its folder and "
            "run the same command again to use the second best one."
        )
    model = saved_model.build_inference_model(
        config.network, len(config.data.segmentation_classes), config.input_channels, state
    )
    data, parents = read_training_data(run), read_parents(run)
    exported, tried = _tune_prediction(model, config, data, on_progress)
    metadata = bundle_metadata(exported, data, best.history[-1], commit, parents, tried)
    saved_model.export_bundle(model, exported, metadata, run.child("bundle"))
    if config.train.antillia_weights != "none":
        antillia_weights.save_weights(config, model.get_weights(), run)
    write_tables(run, history)
    write_curves(run, history, config.train.monitor, config.data.segmentation_classes)
    save_epoch_comparison(run, config.data.segmentation_classes)
    record: RunRecord = {
        "history": list(history),
        "best": best.history[-1],
        "commit": commit,
        "fingerprint": config.fingerprint(),
        "host_info": host_info(),
    }
    run.write(RUN_RECORD, json.dumps(record, indent=2).encode())
    return RunResult(run.url, run.child("bundle").url, tuple(history), best.history[-1])


def _tune_prediction(
    model: keras.Model, config: Config, data: TrainingDataInfo, on_progress: ProgressCallback
) -> tuple[Config, tuple[TriedSetting, ...]]:
    """The settings of the bundle, and how those of [predict] were chosen, if they were."""
    if not config.predict.tune_on_validation:
        return config, ()
    from trainer.evaluation.prediction_tuning import tune_prediction

    dataset = prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
    if dataset.fingerprint != data.fingerprint:
        raise TrainingError(
            f"the slices in {dataset.root} have changed since the training started (dataset "
            f"{data.fingerprint}, now {dataset.fingerprint}), so that predict.tune_on_validation "
            "cannot use them: restore the slices and run the same command again."
        )
    return tune_prediction(model, config, data.intensity_scaling, dataset, on_progress)


def bundle_metadata(
    config: Config,
    training_data: TrainingDataInfo,
    best: EpochMetrics,
    commit: str | None,
    parents: Sequence[ParentBundle] = (),
    tried: Sequence[TriedSetting] = (),
) -> BundleMetadata:
    """The metadata in the manifest of the bundle; tried: how [predict] was chosen."""
    return BundleMetadata(
        name=config.run.name,
        created=utc_now(),
        commit=commit,
        machine=host_info()["machine"],
        fingerprint=config.fingerprint(),
        dataset=training_data.fingerprint,
        patients=training_data.patients,
        image_size=config.network.image_shape,
        image_channels=config.network.image_channels,
        neighbours=config.data.neighbours,
        classes=config.data.segmentation_classes,
        intensity_scaling=training_data.intensity_scaling,
        class_tolerance=config.data.class_tolerance,
        other_values_are_background=config.data.other_values_are_background,
        metrics=best,
        parents=tuple(parents),
        **prediction_metadata(config.predict, tried),
    )


def save_epoch_comparison(run: Storage, classes: Sequence[SegmentationClass]) -> None:
    """Write previews/epochs.png: the same slices after several epochs."""
    keys = {
        int(match[1]): f"previews/{info.key}"
        for info in run.child("previews").list_objects()
        if (match := re.fullmatch(r"epoch-(\d+)\.png", info.key))
    }
    chosen = image_grid.evenly_spaced(sorted(keys), image_grid.MAX_COMPARED_EPOCHS)
    if chosen:
        sheets = {epoch: run.read(keys[epoch]) for epoch in chosen}
        run.write("previews/epochs.png", image_grid.epoch_comparison(sheets, classes))
