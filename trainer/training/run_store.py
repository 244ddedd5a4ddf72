"""A run: the folder or prefix <storage.root>/runs/<name> and its records.

dataset.json, encoder_weights.json if the encoder has pre-trained weights, start_from.json if the
training starts from a bundle, and then config.toml are written when the run starts, run.json when
it is finished.
Between the two, the latest checkpoint says how far it has trained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from contract.config import Config, Train
from contract.config.loader import to_toml
from contract.errors import DataError, TrainingError
from contract.host_info import HostInfo
from contract.imaging.intensity_scaling import IntensityScaling
from contract.plurals import pluralize
from contract.state_files import read_config, read_json
from contract.storage import Storage, open_storage
from trainer.data.dataset_index import (
    Dataset,
    check_neighbours,
    check_tile_sizes,
    intensity_scaling,
)
from trainer.data.preview_source import check_preview_source
from trainer.training import checkpoints
from trainer.training.encoder_weights import (
    check_encoder_weights,
    record_encoder_weights,
    warn_of_frozen_random_weights,
)
from trainer.training.loggers.history import EpochMetrics
from trainer.training.start_from import check_start_from, record_start_from

RUN_RECORD = "run.json"
_CONFIG, _DATASET = "config.toml", "dataset.json"
_RESTORE_HINT = "restore it from a copy, or set run.name to a new name"


@dataclass(frozen=True)
class RunResult:
    """A finished run: its address, its bundle's address, all epochs, and the best one."""

    run: str
    bundle: str
    history: tuple[EpochMetrics, ...]
    best: EpochMetrics


@dataclass(frozen=True)
class TrainingDataInfo:
    """The slices that a run was started with.

    fingerprint: of the dataset; patients: of the splits used, {"train": …, "valid": …};
    intensity_scaling: of the raw intensities, by data.normalize.
    """

    fingerprint: str
    patients: dict[str, tuple[str, ...]]
    intensity_scaling: IntensityScaling


class RunRecord(TypedDict):
    """The content of run.json."""

    history: list[EpochMetrics]
    best: EpochMetrics
    commit: str | None
    fingerprint: str
    host_info: HostInfo


def run_storage(config: Config) -> Storage:
    """Where the run of these settings is stored."""
    return open_storage(config.storage.root).child(f"runs/{config.run.name}")


def create_run(run: Storage, config: Config, dataset: Dataset) -> None:
    """Write the settings and the dataset of a new run; raises as check_resumable does."""
    check_resumable(run, config, dataset)
    write_run_metadata(run, config, dataset)


def check_resumable(run: Storage, config: Config, dataset: Dataset) -> None:
    """TrainingError if the run was started with other settings or slices.

    Raises DataError if the settings cannot use these slices.
    """
    check_tile_sizes(dataset, config.network, config.predict)
    check_neighbours(dataset, config.data.neighbours)
    check_batch_size(dataset, config.train)
    check_preview_source(config.train)
    intensity_scaling(dataset, config.data)
    name, is_empty = f"run {config.run.name!r}", not read_history(run)
    check_same_settings(name, run, config, dataset, Config.training_settings, is_empty)
    check_initial_weights(name, run, config, dataset, is_empty)


def check_initial_weights(
    name: str, storage: Storage, config: Config, dataset: Dataset, is_empty: bool
) -> None:
    """Check the weights that the training of a run or sweep starts from.

    Args:
        name: How the message names it: "run 'demo'".
        storage: Its storage.
        config: The settings of this command.
        dataset: The slices of this command.
        is_empty: Whether it has no epoch or trial yet, so that it needs these weights.

    Raises:
        TrainingError: The weights are missing, damaged, or not those that it was started with.
        DataError: Patients of the valid or test split trained the bundle of train.start_from.
    """
    if is_empty:
        warn_of_frozen_random_weights(config)
    check_encoder_weights(name, storage, config.network, is_empty)
    check_start_from(storage, config, dataset, is_empty)


def check_batch_size(dataset: Dataset, train: Train) -> None:
    """DataError if a batch has more samples than the training split."""
    count = len(dataset.select("train"))
    if train.batch_size > count:
        raise DataError(
            f"train.batch_size = {train.batch_size} is larger than the training split of "
            f"{dataset.root}, which has {pluralize(count, 'slice')}: set train.batch_size to at "
            f"most {count}."
        )


def check_same_settings(
    name: str,
    storage: Storage,
    config: Config,
    dataset: Dataset,
    select_settings: Callable[[Config], Mapping[str, Any]],
    is_empty: bool,
) -> None:
    """TrainingError if a run, sweep or cross-validation was started with other settings or slices.

    Args:
        name: How the message names it: "run 'demo'".
        storage: Its storage.
        config: The settings of this command.
        dataset: The slices of this command.
        select_settings: The settings that must not change.
        is_empty: Whether it has no epoch or trial yet, so that deleting it loses nothing.
    """
    started = read_started_config(storage)
    if started is None:
        return
    if changed := changed_settings(select_settings(started), select_settings(config)):
        restore = "restore those settings to resume it"
        raise TrainingError(
            f"{name} in {storage.url} was started with other settings ({'; '.join(changed)}): set "
            f"run.name to a new name, or {_delete_hint(storage) if is_empty else restore}."
        )
    fingerprint = read_training_data(storage).fingerprint
    if fingerprint != dataset.fingerprint:
        # If training continued on patients of the test split, or the other way round, the metrics
        # would be meaningless.
        restore = "restore the slices and splits.json to resume it"
        raise TrainingError(
            f"{name} in {storage.url} was started with other slices or splits (dataset "
            f"{fingerprint}, now {dataset.fingerprint} in {dataset.root}): set run.name to a new "
            f"name, or {_delete_hint(storage) if is_empty else restore}."
        )


def _delete_hint(storage: Storage) -> str:
    return f"delete {storage.url}, which contains no epoch yet"


def read_started_config(storage: Storage) -> Config | None:
    """The settings that a run, sweep or cross-validation was started with; None if it was not."""
    return read_config(storage, _CONFIG, _RESTORE_HINT) if storage.exists(_CONFIG) else None


def check_storage_visible(run: Storage) -> None:
    """TrainingError if a worker does not see the run that its driver started."""
    if not run.exists(_CONFIG):
        raise TrainingError(
            f"a training worker does not find {_CONFIG} in {run.url}: storage.root must be "
            "reachable from every node; use an s3:// address."
        )


def write_run_metadata(storage: Storage, config: Config, dataset: Dataset) -> None:
    """Write the dataset, the origin of the initial weights and the settings, config.toml last."""
    if not storage.exists(_CONFIG):
        patients = {split: dataset.patients(split) for split in ("train", "valid")}
        scaling = intensity_scaling(dataset, config.data)
        info = TrainingDataInfo(dataset.fingerprint, patients, scaling)
        storage.write(_DATASET, TypeAdapter(TrainingDataInfo).dump_json(info, indent=1))
        record_encoder_weights(storage, config.network)
        record_start_from(storage, config)
        storage.write(_CONFIG, to_toml(config).encode())


def read_training_data(storage: Storage) -> TrainingDataInfo:
    """The slices that a run or sweep was started with."""
    return read_json(storage, _DATASET, TrainingDataInfo, _RESTORE_HINT)


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
    """The result of a finished run; None while it is not finished."""
    if not run.exists(RUN_RECORD):
        return None
    remedy = "delete it and run the same command again, which writes it again"
    record = read_json(run, RUN_RECORD, RunRecord, remedy)
    return RunResult(run.url, run.child("bundle").url, tuple(record["history"]), record["best"])


def read_history(run: Storage) -> tuple[EpochMetrics, ...]:
    """The metrics of every epoch in the latest checkpoint of a run; () without a checkpoint."""
    found_checkpoints = checkpoints.list_checkpoints(run.child("checkpoints"))
    return found_checkpoints[0].history if found_checkpoints else ()


def count_epochs(run: Storage) -> int:
    """Epochs in the latest checkpoint of a run; 0 without a checkpoint."""
    return len(read_history(run))
