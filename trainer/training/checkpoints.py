"""Checkpoints of a run: private to the trainer, kept only to resume it.

A checkpoint is two objects below <run>/checkpoints/<epoch>-<token>/: state.npz (weights and
optimiser) and, written last, checkpoint.json (epoch, history, digest). The token keeps a worker
that was taken for dead from writing into its successor's checkpoint. docs/decisions tells why
these are our own files and not Ray's.
"""

import hashlib
import io
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.config import Train
from contract.errors import NotFoundError
from contract.storage import Storage
from trainer.components.lr_schedule import score_sign

log = logging.getLogger(__name__)

EpochMetrics = dict[str, float]
ModelState = list[NDArray]

_FACTS, _STATE = "checkpoint.json", "state.npz"


@dataclass(frozen=True)
class Checkpoint:
    """A saved state: how many epochs were done, and what each of them measured."""

    key: str
    epochs: int
    history: tuple[EpochMetrics, ...]
    sha256: str


def save_checkpoint(
    store: Storage, state: ModelState, history: Sequence[EpochMetrics]
) -> Checkpoint:
    """Write a state after the last epoch of the history; the facts, which make it count, last."""
    place = f"{len(history):05d}-{secrets.token_hex(4)}"
    data = to_npz(state)
    digest = hashlib.sha256(data).hexdigest()
    store.write(f"{place}/{_STATE}", data)
    facts = {"epochs": len(history), "history": list(history), "sha256": digest}
    store.write(f"{place}/{_FACTS}", json.dumps(facts).encode())
    return Checkpoint(place, len(history), tuple(history), digest)


def list_checkpoints(store: Storage) -> list[Checkpoint]:
    """Every whole checkpoint, newest first; a damaged one is left out with a warning.

    Raises StorageError where the store fails: taken for "no checkpoint", that would begin the run
    anew and, in time, delete what it could not read.
    """
    places = [entry.key for entry in store.list_objects() if entry.key.endswith("/" + _FACTS)]
    return [read for place in sorted(places, reverse=True) if (read := _read(store, place))]


def load_latest(store: Storage) -> tuple[Checkpoint, ModelState] | None:
    """The newest checkpoint whose state is undamaged, with it."""
    for checkpoint in list_checkpoints(store):
        if (state := load_state(store, checkpoint)) is not None:
            return checkpoint, state
    return None


def load_state(store: Storage, checkpoint: Checkpoint) -> ModelState | None:
    """The state of a checkpoint; None, with a warning, where it is missing or damaged.

    Raises StorageError where the store fails.
    """
    try:
        data = store.read(f"{checkpoint.key}/{_STATE}")
    except NotFoundError as error:
        log.warning("checkpoint %s is passed over: %s", checkpoint.key, error)
        return None
    if hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        log.warning("checkpoint %s is passed over: its state is damaged", checkpoint.key)
        return None
    return from_npz(data)


def delete_old(store: Storage, train: Train) -> None:
    """Delete the checkpoints that are neither the newest nor among the best."""
    for checkpoint in prune_candidates(list_checkpoints(store), train):
        store.delete(f"{checkpoint.key}/{_FACTS}")
        store.delete(f"{checkpoint.key}/{_STATE}")


def prune_candidates(checkpoints: Sequence[Checkpoint], train: Train) -> list[Checkpoint]:
    """Which checkpoints need not be kept: all but the newest and the keep_checkpoints best."""
    best = sorted(checkpoints, key=lambda one: _rank(one, train), reverse=True)
    newest = max(checkpoints, key=lambda one: one.epochs)
    kept = {one.key for one in [newest, *best[: train.keep_checkpoints]]}
    return [one for one in checkpoints if one.key not in kept]


def best_checkpoint(checkpoints: Sequence[Checkpoint], train: Train) -> Checkpoint:
    """The checkpoint with the best monitored score; the earlier one of equals."""
    return max(checkpoints, key=lambda one: _rank(one, train))


def to_npz(state: ModelState) -> bytes:
    """A list of arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    named = {f"{index:04d}": value for index, value in enumerate(state)}
    np.savez(buffer, allow_pickle=False, **named)
    return buffer.getvalue()


def from_npz(data: bytes) -> ModelState:
    """The list of arrays of an .npz file."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return [file[name] for name in sorted(file.files)]


def _rank(checkpoint: Checkpoint, train: Train) -> tuple[float, int]:
    score = checkpoint.history[-1][train.monitor]
    return score_sign(train.monitor) * score, -checkpoint.epochs


def _read(store: Storage, key: str) -> Checkpoint | None:
    try:
        facts = json.loads(store.read(key))
        return Checkpoint(
            key.split("/")[0], facts["epochs"], tuple(facts["history"]), facts["sha256"]
        )
    except (ValueError, KeyError, NotFoundError) as error:
        log.warning("checkpoint %s is passed over: %s", key, error)
        return None
