"""The end of a training: the best checkpoint becomes a bundle, and the run says it is finished."""

import json
import re
from collections.abc import Sequence

from contract.bundle import BundleMetadata
from contract.config import Config
from contract.errors import TrainingError
from contract.host_info import host_info
from contract.storage import Storage
from trainer.export import saved_model
from trainer.training import checkpoints
from trainer.training.checkpoints import EpochMetrics
from trainer.training.loggers import run_logger
from trainer.training.run_store import RUN_RECORD, RunResult, TrainingDataInfo, read_training_data
from trainer.visualization import overlays


def finalize_run(
    run: Storage, config: Config, history: Sequence[EpochMetrics], commit: str | None
) -> RunResult:
    """Make the bundle of the best checkpoint and mark the run finished, run.json last."""
    store = run.child("checkpoints")
    best = checkpoints.best_checkpoint(checkpoints.list_checkpoints(store), config.train)
    state = checkpoints.load_state(store, best)
    if state is None:
        raise TrainingError(
            f"the best checkpoint {best.key} in {store.url} is damaged: delete its folder and "
            "run the same command again to take the next best."
        )
    network = saved_model.build_inference_model(config, state)
    found = bundle_metadata(config, read_training_data(run), best.history[-1], commit)
    saved_model.export_bundle(network, config, found, run.child("bundle"))
    run_logger.write_tables(run, history)
    run_logger.draw_curves(run, history, config.train.monitor)
    save_epoch_comparison(run)
    closing = {"history": list(history), "best": best.history[-1], "commit": commit}
    closing |= {"fingerprint": config.fingerprint(), "environment": host_info()}
    run.write(RUN_RECORD, json.dumps(closing, indent=2).encode())
    return RunResult(run.url, run.child("bundle").url, tuple(history), best.history[-1])


def bundle_metadata(
    config: Config, slices: TrainingDataInfo, best: EpochMetrics, commit: str | None
) -> BundleMetadata:
    """What the bundle's manifest says of its making."""
    env = host_info()
    return BundleMetadata.now(
        name=config.run.name,
        commit=commit,
        machine=env["machine"],
        fingerprint=config.fingerprint(),
        dataset=slices.fingerprint,
        patients=slices.patients,
        image_size=config.network.image_size,
        image_channels=config.network.image_channels,
        threshold=config.predict.threshold,
        metrics=best,
    )


def save_epoch_comparison(run: Storage) -> None:
    """pictures/epochs.png: the same slices at several epochs, to see the network learn."""
    keys = {
        int(found[1]): f"pictures/{entry.key}"
        for entry in run.child("pictures").list_objects()
        if (found := re.fullmatch(r"epoch-(\d+)\.png", entry.key))
    }
    chosen = overlays.evenly_spaced(sorted(keys), overlays.EPOCHS_SIDE_BY_SIDE)
    if chosen:
        sheets = {epoch: run.read(keys[epoch]) for epoch in chosen}
        run.write("pictures/epochs.png", overlays.epoch_comparison(sheets))
