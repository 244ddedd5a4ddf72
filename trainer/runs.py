"""A run: the folder or prefix <storage.root>/runs/<name> and what it says of itself.

config.toml is written when the run begins, run.json when it is finished; between the two the
newest checkpoint tells how far it has come.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.config import Config, validated
from contract.errors import TrainingError
from contract.loading import dump, parse
from contract.storage import Storage, open_storage
from trainer import checkpoints
from trainer.checkpoints import Row

FINISHED = "run.json"
_CONFIG = "config.toml"


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
    if not run.exists(FINISHED):
        return None
    facts = json.loads(run.read(FINISHED))
    return Result(run.url, run.at("bundle").url, tuple(facts["history"]), facts["best"])


def history(run: Storage) -> tuple[Row, ...]:
    """The row of every epoch that the newest checkpoint of a run holds; none without one."""
    found = checkpoints.found(run.at("checkpoints"))
    return found[0].history if found else ()


def epochs_done(run: Storage) -> int:
    """Epochs that the newest checkpoint of a run holds; 0 without one."""
    return len(history(run))
