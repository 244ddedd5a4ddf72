"""A run: the folder or prefix <storage.root>/runs/<name> and what it says of itself.

dataset.json and then config.toml are written when the run begins, run.json when it is finished;
between the two the newest checkpoint tells how far it has come.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from contract.config import Config, validated
from contract.config.loader import dump, parse
from contract.errors import TrainingError
from contract.storage import Storage, open_storage
from trainer.data.dataset_index import Dataset, refuse_other_sizes
from trainer.training import checkpoints
from trainer.training.checkpoints import Row

FINISHED = "run.json"
_CONFIG, _SLICES = "config.toml", "dataset.json"


@dataclass(frozen=True)
class Result:
    """A finished run: where it and its bundle lie, every epoch's row, and the best one."""

    run: str
    bundle: str
    history: tuple[Row, ...]
    best: Row


@dataclass(frozen=True)
class TrainedOn:
    """The slices a run was begun with.

    dataset: their fingerprint; patients: who trains and validates, {"train": …, "valid": …}.
    """

    dataset: str
    patients: dict[str, tuple[str, ...]]


def place(config: Config) -> Storage:
    """Where the run of these settings is kept."""
    return open_storage(config.storage.root).at(f"runs/{config.run.name}")


def begin(run: Storage, config: Config, slices: Dataset) -> None:
    """Write the settings and the slices of a new run; raises as refuse_others does."""
    refuse_others(run, config, slices)
    note_beginning(run, config, slices)


def refuse_others(run: Storage, config: Config, slices: Dataset) -> None:
    """TrainingError where a run was begun with other settings or slices.

    Raises DataError where the settings cannot use these slices.
    """
    refuse_other_sizes(slices, config)
    called, empty = f"run {config.run.name!r}", not history(run)
    refuse_begun_otherwise(called, run, config, slices, Config.deciding, empty)


def refuse_begun_otherwise(
    called: str,
    store: Storage,
    config: Config,
    slices: Dataset,
    deciding: Callable[[Config], Mapping[str, Any]],
    empty: bool,
) -> None:
    """TrainingError where a run or sweep was begun with other settings, or on other slices.

    called: what to call it; deciding: the settings that must stay as they are; empty: whether it
    has come to nothing yet.
    """
    if not store.exists(_CONFIG):
        return
    begun = validated(parse(store.read(_CONFIG).decode(), store.url), store.url)
    if changed := differences(deciding(begun), deciding(config)):
        back = "go back to those settings to continue it"
        raise TrainingError(
            f"{called} in {store.url} was begun with other settings ({'; '.join(changed)}): set "
            f"run.name to a new name, or {_nothing_lost(store) if empty else back}."
        )
    known = trained_on(store).dataset
    if known != slices.fingerprint:
        # A network that goes on learning from patients it was tested on, or the other way round,
        # has figures that mean nothing.
        back = "bring slices and splits.json back as they were to continue it"
        raise TrainingError(
            f"{called} in {store.url} was begun with other slices or splits (dataset {known}, now "
            f"{slices.fingerprint} in {slices.root}): set run.name to a new name, or "
            f"{_nothing_lost(store) if empty else back}."
        )


def _nothing_lost(store: Storage) -> str:
    return f"delete {store.url}, which holds no epoch yet"


def refuse_unseen(run: Storage) -> None:
    """TrainingError where a worker does not see the run that its driver began."""
    if not run.exists(_CONFIG):
        raise TrainingError(
            f"a training worker finds no {_CONFIG} in {run.url}: storage.root must be reachable "
            "from every node; use an s3:// address."
        )


def note_beginning(store: Storage, config: Config, slices: Dataset) -> None:
    """Write the slices and the settings that a new run or sweep begins with, config.toml last."""
    if not store.exists(_CONFIG):
        patients = {split: slices.patients(split) for split in ("train", "valid")}
        facts = TrainedOn(slices.fingerprint, patients)
        store.write(_SLICES, TypeAdapter(TrainedOn).dump_json(facts, indent=1))
        store.write(_CONFIG, dump(config).encode())


def trained_on(begun: Storage) -> TrainedOn:
    """The slices that a run or sweep was begun with."""
    return TypeAdapter(TrainedOn).validate_json(begun.read(_SLICES))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ, as "train.epochs was 3, now 5"."""
    old, new = flat(before), flat(now)
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
