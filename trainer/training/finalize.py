"""The end of a training: the best checkpoint becomes a bundle, and the run says it is finished."""

import json
import re
from collections.abc import Sequence

from contract.bundle import Facts
from contract.config import Config
from contract.errors import TrainingError
from contract.host_info import environment
from contract.storage import Storage
from trainer.export import saved_model
from trainer.training import checkpoints
from trainer.training.checkpoints import Row
from trainer.training.loggers import run_logger
from trainer.training.run_store import FINISHED, Result, TrainedOn, trained_on
from trainer.visualization import overlays


def conclude(run: Storage, config: Config, history: Sequence[Row], commit: str | None) -> Result:
    """Make the bundle of the best checkpoint and mark the run finished, run.json last."""
    store = run.at("checkpoints")
    best = checkpoints.best(checkpoints.found(store), config.train)
    state = checkpoints.load(store, best)
    if state is None:
        raise TrainingError(
            f"the best checkpoint {best.place} in {store.url} is damaged: delete its folder and "
            "run the same command again to take the next best."
        )
    network = saved_model.plain_copy(config, state)
    found = facts(config, trained_on(run), best.history[-1], commit)
    saved_model.export(network, config, found, run.at("bundle"))
    run_logger.write_tables(run, history)
    run_logger.draw_curves(run, history, config.train.monitor)
    lay_side_by_side(run)
    closing = {"history": list(history), "best": best.history[-1], "commit": commit}
    closing |= {"fingerprint": config.fingerprint(), "environment": environment()}
    run.write(FINISHED, json.dumps(closing, indent=2).encode())
    return Result(run.url, run.at("bundle").url, tuple(history), best.history[-1])


def facts(config: Config, slices: TrainedOn, best: Row, commit: str | None) -> Facts:
    """What the bundle's manifest says of its making."""
    env = environment()
    return Facts.now(
        name=config.run.name,
        commit=commit,
        machine=env["machine"],
        fingerprint=config.fingerprint(),
        dataset=slices.dataset,
        patients=slices.patients,
        image_size=config.network.image_size,
        image_channels=config.network.image_channels,
        threshold=config.predict.threshold,
        metrics=best,
    )


def lay_side_by_side(run: Storage) -> None:
    """pictures/epochs.png: the same slices at several epochs, to see the network learn."""
    keys = {
        int(found[1]): f"pictures/{entry.key}"
        for entry in run.at("pictures").entries()
        if (found := re.fullmatch(r"epoch-(\d+)\.png", entry.key))
    }
    chosen = overlays.evenly(sorted(keys), overlays.EPOCHS_SIDE_BY_SIDE)
    if chosen:
        sheets = {epoch: run.read(keys[epoch]) for epoch in chosen}
        run.write("pictures/epochs.png", overlays.side_by_side(sheets))
