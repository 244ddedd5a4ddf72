"""A run: the folder or prefix <storage.root>/runs/<name> and what it says of itself.

config.toml is written when the run begins, run.json when it is finished; between the two the
newest checkpoint tells how far it has come.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.bundle import Facts
from contract.config import Config, validated
from contract.errors import TrainingError
from contract.loading import dump, parse
from contract.storage import Storage, open_storage
from trainer import checkpoints, export, journal, pictures
from trainer.checkpoints import Row
from trainer.environment import environment

_CONFIG, _FINISHED = "config.toml", "run.json"


@dataclass(frozen=True)
class Result:
    """A finished run: where it and its bundle lie, every epoch's row, and the best one."""

    run: str
    bundle: str
    history: tuple[Row, ...]
    best: Row


def place(config: Config) -> Storage:
    """Where the run of these settings is kept."""
    return open_storage(config.storage.root).at(f"runs/{config.run.name}")


def begin(run: Storage, config: Config) -> None:
    """Write the settings of a new run; TrainingError where the run was begun with other ones."""
    if not run.exists(_CONFIG):
        run.write(_CONFIG, dump(config).encode())
        return
    begun = validated(parse(run.read(_CONFIG).decode(), run.url), run.url)
    if begun.fingerprint() == config.fingerprint():
        return
    raise TrainingError(
        f"run {config.run.name!r} in {run.url} was begun with other settings "
        f"({'; '.join(differences(begun, config))}): set run.name to a new name, "
        "or go back to those settings to continue it."
    )


def differences(before: Config, now: Config) -> list[str]:
    """The settings that decide a training and differ, as "train.epochs was 3, now 5"."""
    old, new = (flat(config.deciding()) for config in (before, now))
    return [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def result(run: Storage) -> Result | None:
    """What a finished run says; None while it is not finished."""
    if not run.exists(_FINISHED):
        return None
    facts = json.loads(run.read(_FINISHED))
    return Result(run.url, run.at("bundle").url, tuple(facts["history"]), facts["best"])


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
    network = export.plain_copy(config, state)
    export.export(network, config, facts(config, best.history[-1], commit), run.at("bundle"))
    journal.write_tables(run, history, config.train.monitor)
    lay_side_by_side(run)
    closing = {"history": list(history), "best": best.history[-1], "commit": commit}
    closing |= {"fingerprint": config.fingerprint(), "environment": environment()}
    run.write(_FINISHED, json.dumps(closing, indent=2).encode())
    return Result(run.url, run.at("bundle").url, tuple(history), best.history[-1])


def facts(config: Config, best: Row, commit: str | None) -> Facts:
    """What the bundle's manifest says of its making."""
    env = environment()
    return Facts.now(
        name=config.run.name,
        commit=commit,
        machine=env["machine"],
        fingerprint=config.fingerprint(),
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
    chosen = pictures.evenly(sorted(keys), pictures.EPOCHS_SIDE_BY_SIDE)
    if chosen:
        sheets = {epoch: run.read(keys[epoch]) for epoch in chosen}
        run.write("pictures/epochs.png", pictures.side_by_side(sheets))
