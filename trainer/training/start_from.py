"""Fine-tuning: a training that starts from the weights of a bundle (train.start_from).

The command resolves the reference once, when a run, sweep or cross-validation starts, and adds the
digest of the bundle to the setting (`pin_start_from`): the fingerprint of the run contains it, and
workers and later trials load this bundle or none. Each worker reads the weights when it builds the
network of a run that has no checkpoint yet; a run that has one resumes without the bundle.

    start_from.json      the bundle and the ones before it, with their patients
    loaded_layers.json   which layers have the weights of the bundle
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from contract import bundle as bundles
from contract.bundle import ParentBundle
from contract.config import Config
from contract.config.loader import load_config
from contract.config.start_from import add_digest, split_digest
from contract.errors import DataError, TrainingError, UserError
from contract.progress import ProgressCallback
from contract.registry import open_bundle
from contract.state_files import read_config, read_json
from contract.storage import Storage
from trainer.data.dataset_index import SPLITS, Dataset, Split
from trainer.export.weights import from_npz

if TYPE_CHECKING:
    import tf_keras as keras

log = logging.getLogger(__name__)

RECORD, LAYERS = "start_from.json", "loaded_layers.json"
_CONFIG = "config.toml"
_RESTORE_HINT = "restore it from a copy, or set run.name to a new name"
_MAX_LISTED = 5
_CHECKED_SPLITS: tuple[Split, ...] = ("valid", "test")


class StartFromRecord(TypedDict):
    """The content of start_from.json: the bundle, then the one that it was started from, …"""

    parents: list[ParentBundle]


class LoadedLayers(TypedDict):
    """The content of loaded_layers.json: names of layers of the network that have weights."""

    loaded: list[str]
    not_loaded: list[str]


def pin_start_from(config: Config, storage: Storage) -> Config:
    """The settings with the digest of the bundle in train.start_from.

    It is the digest that a run or sweep was started with, if its reference is the same: it resumes
    although the bundle is gone, or a stage points to another version now.

    Args:
        config: The settings.
        storage: The storage of the run, sweep or cross-validation.

    Raises:
        TrainingError: There is no such bundle.
    """
    reference = config.train.start_from
    if reference is None or split_digest(reference)[1] is not None:
        return config
    if storage.exists(_CONFIG):
        started = read_config(storage, _CONFIG, _RESTORE_HINT).train.start_from
        if started is not None and split_digest(started)[0] == reference:
            return config.with_values({"train.start_from": started})
    try:
        _, digest = bundles.identify(open_bundle(reference, config.storage.root))
    except UserError as error:
        raise _error(config, error) from error
    return config.with_values({"train.start_from": add_digest(reference, digest)})


def check_start_from(storage: Storage, config: Config, dataset: Dataset, is_needed: bool) -> None:
    """Check the bundle that the training of a run or sweep starts from, and its patients.

    Args:
        storage: The storage of the run or sweep.
        config: The settings of this command.
        dataset: The slices of this command.
        is_needed: Whether the bundle must exist; a run that has a checkpoint continues without it.

    Raises:
        TrainingError: The bundle is missing, damaged, another one or an ensemble.
        DataError: A patient of the valid or test split trained it, or a bundle before it.
    """
    if config.train.start_from is None:
        return
    if is_needed or not storage.exists(RECORD):
        parents = _fetch(config)[1]
    else:
        parents = read_parents(storage)
    _check_leakage(parents, dataset, config)


def record_start_from(storage: Storage, config: Config) -> None:
    """Write start_from.json to the storage of a new run or sweep, if its settings have a bundle."""
    if config.train.start_from is not None:
        record = StartFromRecord(parents=_fetch(config)[1])
        storage.write(RECORD, TypeAdapter(StartFromRecord).dump_json(record, indent=1))


def read_parents(storage: Storage) -> list[ParentBundle]:
    """The bundle that a run was started from and the ones before it; empty if there is none."""
    if not storage.exists(RECORD):
        return []
    return read_json(storage, RECORD, StartFromRecord, _RESTORE_HINT)["parents"]


def load_start_weights(model: "keras.Model", config: Config, run: Storage | None) -> None:
    """Set the weights of the layers of a network that fit those of the bundle, if there is one.

    The state of the optimizer is not that of the bundle.

    Args:
        model: The network.
        config: The settings.
        run: Where loaded_layers.json is written; None: nowhere.

    Raises:
        TrainingError: The bundle cannot be read, or no layer fits.
    """
    if config.train.start_from is None:
        return
    from trainer.networks.layer_weights import load_fitting_weights, name_weights
    from trainer.networks.registry import build_network

    folder, _ = _fetch(config)
    source = load_config(folder / _CONFIG)
    values = from_npz((folder / "weights.npz").read_bytes())
    network = model
    shapes = [tuple(variable.shape) for variable in model.weights]
    if source.network.name != config.network.name or [each.shape for each in values] != shapes:
        # Its weights have names only as those of a network.
        classes = len(source.data.segmentation_classes)
        network = build_network(source.network, classes, source.input_channels).inference_model
    loaded, others = load_fitting_weights(model, name_weights(network, values))
    if not loaded:
        raise TrainingError(
            f"train.start_from = {config.train.start_from!r}: no layer of its network "
            f"{source.network.name} has the name and the shapes of a layer of {config.network.name}"
            ": start from a bundle of a similar network, or change [network]."
        )
    if run is not None:
        layers = LoadedLayers(loaded=loaded, not_loaded=others)
        run.write(LAYERS, json.dumps(layers, indent=1).encode())


def log_loaded_layers(storage: Storage, name: str) -> None:
    """Log which layers of a run have the weights of the bundle.

    name: how the message names the run.
    """
    if not storage.exists(LAYERS):
        return
    layers = read_json(storage, LAYERS, LoadedLayers, _RESTORE_HINT)
    loaded, others = layers["loaded"], layers["not_loaded"]
    counts = f"{len(loaded)} of {len(loaded) + len(others)}"
    if others:
        log.warning(
            "run %s starts with the weights of train.start_from in %s layers; the others do not "
            "fit and start with random weights: %s",
            name,
            counts,
            _list_names(others),
        )
    else:
        log.info("run %s starts with the weights of train.start_from in all layers", name)


def log_layers_once(storage: Storage, name: str, on_progress: ProgressCallback) -> ProgressCallback:
    """A progress callback that logs the loaded layers as soon as the first step is done."""
    is_logged = False

    def log_and_report(done: int, total: int | None, note: str) -> None:
        nonlocal is_logged
        if total is not None and not is_logged:
            is_logged = True
            log_loaded_layers(storage, name)
        on_progress(done, total, note)

    return log_and_report


def _fetch(config: Config) -> tuple[Path, list[ParentBundle]]:
    """A verified local folder of the bundle; it, and those that its own training started from."""
    assert config.train.start_from is not None
    try:
        source = open_bundle(config.train.start_from, config.storage.root)
        # The digest is that of the source: a copy may have its manifest in another form.
        manifest, digest = bundles.identify(source)
        folder = bundles.fetch(source)
    except UserError as error:
        raise _error(config, error) from error
    if manifest.members:
        problem = "it is an ensemble, which has no weights of one network: name one of its members."
        raise _error(config, problem)
    fields = manifest.model_dump(include={"name", "fingerprint", "dataset", "patients"})
    return folder, [ParentBundle(digest=digest, **fields), *manifest.parents]


def _check_leakage(parents: list[ParentBundle], dataset: Dataset, config: Config) -> None:
    """DataError (or, if overlap is allowed, a warning) for patients that trained a parent."""
    for parent in parents:
        if not any(parent.patients.values()):
            log.warning(
                "the bundle %s of train.start_from does not say which patients it was trained on: "
                "data leakage cannot be detected",
                parent.name,
            )
    leaked = sorted(
        {
            patient
            for split in _CHECKED_SPLITS
            for patient in dataset.patients(split)
            for parent in parents
            for earlier in SPLITS[: SPLITS.index(split)]
            if patient in parent.patients.get(earlier, ())
        }
    )
    if not leaked:
        return
    fault = (
        f"train.start_from = {config.train.start_from!r}: data leakage: this bundle or one before "
        f"it was trained on {len(leaked)} patient{'s' if leaked[1:] else ''} of the valid and test "
        f"splits of {dataset.root} ({_list_names(leaked)})"
    )
    if not config.data.allow_patient_overlap:
        raise DataError(
            f"{fault}: move them to the train split, start from a bundle that was not trained on "
            "them, or, if other patients have the same names, set data.allow_patient_overlap = "
            "true."
        )
    log.warning("%s; the metrics are not of new patients", fault)


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if names[_MAX_LISTED:] else ""
    return ", ".join(names[:_MAX_LISTED]) + more


def _error(config: Config, problem: object) -> TrainingError:
    return TrainingError(f"train.start_from = {config.train.start_from!r}: {problem}")
