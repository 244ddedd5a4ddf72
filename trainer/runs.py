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
from contract.errors import TrainingError
from contract.loading import dump, parse
from contract.storage import Storage, open_storage
from trainer import checkpoints
from trainer.checkpoints import Row
from trainer.data.cases import Dataset, refuse_other_sizes

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
    """Write the settings and the slices of a new run, config.toml last.

    Raises TrainingError where the run was begun with other settings or slices, DataError where
    the settings cannot use these slices.
    """
    refuse_other_sizes(slices, config)
    under_way = run.exists(FINISHED) or epochs_done(run) > 0
    begin_as(f"run {config.run.name!r}", run, config, slices, under_way, Config.deciding)


def begin_as(
    called: str,
    store: Storage,
    config: Config,
    slices: Dataset,
    under_way: bool,
    deciding: Callable[[Config], Mapping[str, Any]],
) -> None:
    """Write the settings and the slices that a run or sweep begins with, config.toml last.

    called: what to call it; under_way: whether it has come to anything, as what has nothing to
    lose may be begun anew; deciding: the settings that must stay as they are. Raises TrainingError
    where one that is under way was begun with others.
    """
    if not (under_way and store.exists(_CONFIG)):
        note_slices(store, slices)
        store.write(_CONFIG, dump(config).encode())
        return
    if changed := differences(deciding(begun_with(store)), deciding(config)):
        raise TrainingError(
            f"{called} in {store.url} was begun with other settings ({'; '.join(changed)}): set "
            "run.name to a new name, or go back to those settings to continue it."
        )
    refuse_other_slices(store, slices, called)


def begun_with(run: Storage) -> Config:
    """The settings that a run was begun with."""
    return validated(parse(run.read(_CONFIG).decode(), run.url), run.url)


def refuse_others(run: Storage, config: Config) -> None:
    """TrainingError where a worker does not see the run that its driver began.

    Nothing may be there, or what another command has begun anew before there was an epoch.
    """
    if not run.exists(_CONFIG):
        raise TrainingError(
            f"a training worker finds no {_CONFIG} in {run.url}: storage.root must be reachable "
            "from every node; use an s3:// address."
        )
    if begun_with(run).fingerprint() != config.fingerprint():
        raise TrainingError(
            f"run {config.run.name!r} in {run.url} was begun anew by another command with other "
            "settings: set run.name to a new name for one of the two."
        )


def note_slices(begun: Storage, slices: Dataset) -> None:
    """Write down the slices that a run or sweep begins with."""
    patients = {split: slices.patients(split) for split in ("train", "valid")}
    facts = TrainedOn(slices.fingerprint, patients)
    begun.write(_SLICES, TypeAdapter(TrainedOn).dump_json(facts, indent=1))


def trained_on(begun: Storage) -> TrainedOn:
    """The slices that a run or sweep was begun with."""
    return TypeAdapter(TrainedOn).validate_json(begun.read(_SLICES))


def refuse_other_slices(begun: Storage, slices: Dataset, called: str) -> None:
    """TrainingError where a run or sweep was begun with other slices, masks, patients or splits.

    called: what to call it. A network that goes on learning from patients it was tested on, or
    the other way round, has figures that mean nothing.
    """
    known = trained_on(begun).dataset
    if known != slices.fingerprint:
        raise TrainingError(
            f"{called} in {begun.url} was begun with other slices or splits (dataset {known}, now "
            f"{slices.fingerprint} in {slices.root}): set run.name to a new name, or bring slices "
            "and splits.json back as they were to continue it."
        )


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
