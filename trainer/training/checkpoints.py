"""Checkpoints of a run: private to the trainer, used only to resume it.

A checkpoint is two objects below <run>/checkpoints/<epoch>-<token>/: state.npz (weights and
optimizer) and, written last, checkpoint.json (epoch, history, digest). The token keeps a worker
that was assumed dead from writing into the checkpoint of its successor. docs/decisions/0007 says
why these are our own files and not Ray's.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from contract.config import Train
from contract.errors import NotFoundError, first_line
from contract.storage import Storage
from trainer.components.lr_schedule import score_sign
from trainer.export.weights import ModelState, from_npz, to_npz
from trainer.training.loggers.history import EpochMetrics

log = logging.getLogger(__name__)

_METADATA, _STATE = "checkpoint.json", "state.npz"


class CheckpointMetadata(TypedDict):
    """The content of checkpoint.json."""

    epochs: int
    history: list[EpochMetrics]
    sha256: str


_METADATA_TYPE = TypeAdapter(CheckpointMetadata)


@dataclass(frozen=True)
class Checkpoint:
    """A saved state: its key prefix, how many epochs it has, and their metrics."""

    key: str
    epochs: int
    history: tuple[EpochMetrics, ...]
    sha256: str


def save_checkpoint(
    storage: Storage, state: ModelState, history: Sequence[EpochMetrics]
) -> Checkpoint:
    """Write the state after the last epoch of the history; the metadata completes it."""
    key = f"{len(history):05d}-{secrets.token_hex(4)}"
    data = to_npz(state)
    digest = hashlib.sha256(data).hexdigest()
    storage.write(f"{key}/{_STATE}", data)
    metadata: CheckpointMetadata = {
        "epochs": len(history),
        "history": list(history),
        "sha256": digest,
    }
    storage.write(f"{key}/{_METADATA}", json.dumps(metadata).encode())
    return Checkpoint(key, len(history), tuple(history), digest)


def list_checkpoints(storage: Storage) -> list[Checkpoint]:
    """Every complete checkpoint, latest first; a damaged one is skipped with a warning.

    Raises StorageError if the storage fails. If that were treated as "no checkpoint", the run
    would start again and, in time, delete the checkpoints that it could not read.
    """
    keys = [info.key for info in storage.list_objects() if info.key.endswith("/" + _METADATA)]
    checkpoints = (_read_metadata(storage, key) for key in sorted(keys, reverse=True))
    return [checkpoint for checkpoint in checkpoints if checkpoint]


def load_latest(storage: Storage) -> tuple[Checkpoint, ModelState] | None:
    """The latest checkpoint whose state is not damaged, with its state."""
    for checkpoint in list_checkpoints(storage):
        if (state := load_state(storage, checkpoint)) is not None:
            return checkpoint, state
    return None


def load_state(storage: Storage, checkpoint: Checkpoint) -> ModelState | None:
    """The state of a checkpoint; None, with a warning, if it is missing or damaged.

    Raises StorageError if the storage fails.
    """
    try:
        data = storage.read(f"{checkpoint.key}/{_STATE}")
    except NotFoundError as error:
        log.warning("checkpoint %s is skipped: %s", checkpoint.key, error)
        return None
    if hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        log.warning("checkpoint %s is skipped: its state is damaged", checkpoint.key)
        return None
    return from_npz(data)


def delete_old(storage: Storage, train: Train) -> None:
    """Delete the checkpoints that are neither the latest nor among the best."""
    for checkpoint in prune_candidates(list_checkpoints(storage), train):
        storage.delete(f"{checkpoint.key}/{_METADATA}")
        storage.delete(f"{checkpoint.key}/{_STATE}")


def prune_candidates(checkpoints: Sequence[Checkpoint], train: Train) -> list[Checkpoint]:
    """The checkpoints to delete: all but the latest and the keep_checkpoints best."""
    best = sorted(checkpoints, key=lambda checkpoint: _rank(checkpoint, train), reverse=True)
    latest = max(checkpoints, key=lambda checkpoint: checkpoint.epochs)
    kept = {checkpoint.key for checkpoint in [latest, *best[: train.keep_checkpoints]]}
    return [checkpoint for checkpoint in checkpoints if checkpoint.key not in kept]


def best_checkpoint(checkpoints: Sequence[Checkpoint], train: Train) -> Checkpoint:
    """The checkpoint with the best monitored metric; the earliest of equals."""
    return max(checkpoints, key=lambda checkpoint: _rank(checkpoint, train))


def _rank(checkpoint: Checkpoint, train: Train) -> tuple[float, int]:
    score = checkpoint.history[-1][train.monitor]
    return score_sign(train.monitor) * score, -checkpoint.epochs


def _read_metadata(storage: Storage, key: str) -> Checkpoint | None:
    try:
        metadata = _METADATA_TYPE.validate_json(storage.read(key))
        return Checkpoint(
            key.split("/")[0],
            metadata["epochs"],
            tuple(metadata["history"]),
            metadata["sha256"],
        )
    except (ValidationError, NotFoundError) as error:
        log.warning("checkpoint %s is skipped: %s", key, first_line(str(error)))
        return None
