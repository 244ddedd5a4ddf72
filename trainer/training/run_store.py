"""A run: the folder or prefix <storage.root>/runs/<name> and what it says of itself.

dataset.json and then config.toml are written when the run begins, run.json when it is finished;
between the two the newest checkpoint tells how far it has come.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from contract.config import Config, validate
from contract.config.loader import parse_toml, to_toml
from contract.errors import TrainingError
from contract.storage import Storage, open_storage
from trainer.data.dataset_index import Dataset, check_tile_sizes
from trainer.training import checkpoints
from trainer.training.checkpoints import EpochMetrics

RUN_RECORD = "run.json"
_CONFIG, _SLICES = "config.toml", "dataset.json"


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it and its bundle lie, every epoch's row, and the best one."""

    run: str
    bundle: str
    history: tuple[EpochMetrics, ...]
    best: EpochMetrics


@dataclass(frozen=True)
class TrainingDataInfo:
    """The slices a run was begun with.

    dataset: their fingerprint; patients: who trains and validates, {"train": …, "valid": …}.
    """

    fingerprint: str
    patients: dict[str, tuple[str, ...]]


def run_storage(config: Config) -> Storage:
    """Where the run of these settings is kept."""
    return open_storage(config.storage.root).child(f"runs/{config.run.name}")


def create_run(run: Storage, config: Config, slices: Dataset) -> None:
    """Write the settings and the slices of a new run; raises as refuse_others does."""
    check_resumable(run, config, slices)
    write_run_metadata(run, config, slices)


def check_resumable(run: Storage, config: Config, slices: Dataset) -> None:
    """TrainingError where a run was begun with other settings or slices.

    Raises DataError where the settings cannot use these slices.
    """
    check_tile_sizes(slices, config)
    called, empty = f"run {config.run.name!r}", not read_history(run)
    check_same_settings(called, run, config, slices, Config.training_settings, empty)


def check_same_settings(
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
    begun = validate(parse_toml(store.read(_CONFIG).decode(), store.url), store.url)
    if changed := changed_settings(deciding(begun), deciding(config)):
        back = "go back to those settings to continue it"
        raise TrainingError(
            f"{called} in {store.url} was begun with other settings ({'; '.join(changed)}): set "
            f"run.name to a new name, or {_delete_hint(store) if empty else back}."
        )
    known = read_training_data(store).fingerprint
    if known != slices.fingerprint:
        # A network that goes on learning from patients it was tested on, or the other way round,
        # has figures that mean nothing.
        back = "bring slices and splits.json back as they were to continue it"
        raise TrainingError(
            f"{called} in {store.url} was begun with other slices or splits (dataset {known}, now "
            f"{slices.fingerprint} in {slices.root}): set run.name to a new name, or "
            f"{_delete_hint(store) if empty else back}."
        )


def _delete_hint(store: Storage) -> str:
    return f"delete {store.url}, which holds no epoch yet"


def check_storage_visible(run: Storage) -> None:
    """TrainingError where a worker does not see the run that its driver began."""
    if not run.exists(_CONFIG):
        raise TrainingError(
            f"a training worker finds no {_CONFIG} in {run.url}: storage.root must be reachable "
            "from every node; use an s3:// address."
        )


def write_run_metadata(store: Storage, config: Config, slices: Dataset) -> None:
    """Write the slices and the settings that a new run or sweep begins with, config.toml last."""
    if not store.exists(_CONFIG):
        patients = {split: slices.patients(split) for split in ("train", "valid")}
        facts = TrainingDataInfo(slices.fingerprint, patients)
        store.write(_SLICES, TypeAdapter(TrainingDataInfo).dump_json(facts, indent=1))
        store.write(_CONFIG, to_toml(config).encode())


def read_training_data(begun: Storage) -> TrainingDataInfo:
    """The slices that a run or sweep was begun with."""
    return TypeAdapter(TrainingDataInfo).validate_json(begun.read(_SLICES))


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ, as "train.epochs was 3, now 5"."""
    old, new = flatten(before), flatten(now)
    return [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def read_result(run: Storage) -> RunResult | None:
    """What a finished run says; None while it is not finished."""
    if not run.exists(RUN_RECORD):
        return None
    facts = json.loads(run.read(RUN_RECORD))
    return RunResult(run.url, run.child("bundle").url, tuple(facts["history"]), facts["best"])


def read_history(run: Storage) -> tuple[EpochMetrics, ...]:
    """The row of every epoch that the newest checkpoint of a run holds; none without one."""
    found = checkpoints.list_checkpoints(run.child("checkpoints"))
    return found[0].history if found else ()


def count_epochs(run: Storage) -> int:
    """Epochs that the newest checkpoint of a run holds; 0 without one."""
    return len(read_history(run))
