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
from contract.errors import MissingError
from contract.storage import Storage
from trainer.components.lr_schedule import direction

log = logging.getLogger(__name__)

Row = dict[str, float]
State = list[NDArray]

_FACTS, _STATE = "checkpoint.json", "state.npz"


@dataclass(frozen=True)
class Checkpoint:
    """A saved state: how many epochs were done, and what each of them measured."""

    place: str
    epochs: int
    history: tuple[Row, ...]
    sha256: str


def save(store: Storage, state: State, history: Sequence[Row]) -> Checkpoint:
    """Write a state after the last epoch of the history; the facts, which make it count, last."""
    place = f"{len(history):05d}-{secrets.token_hex(4)}"
    data = to_bytes(state)
    digest = hashlib.sha256(data).hexdigest()
    store.write(f"{place}/{_STATE}", data)
    facts = {"epochs": len(history), "history": list(history), "sha256": digest}
    store.write(f"{place}/{_FACTS}", json.dumps(facts).encode())
    return Checkpoint(place, len(history), tuple(history), digest)


def found(store: Storage) -> list[Checkpoint]:
    """Every whole checkpoint, newest first; a damaged one is left out with a warning.

    Raises StorageError where the store fails: taken for "no checkpoint", that would begin the run
    anew and, in time, delete what it could not read.
    """
    places = [entry.key for entry in store.entries() if entry.key.endswith("/" + _FACTS)]
    return [read for place in sorted(places, reverse=True) if (read := _read(store, place))]


def newest(store: Storage) -> tuple[Checkpoint, State] | None:
    """The newest checkpoint whose state is undamaged, with it."""
    for checkpoint in found(store):
        if (state := load(store, checkpoint)) is not None:
            return checkpoint, state
    return None


def load(store: Storage, checkpoint: Checkpoint) -> State | None:
    """The state of a checkpoint; None, with a warning, where it is missing or damaged.

    Raises StorageError where the store fails.
    """
    try:
        data = store.read(f"{checkpoint.place}/{_STATE}")
    except MissingError as error:
        log.warning("checkpoint %s is passed over: %s", checkpoint.place, error)
        return None
    if hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        log.warning("checkpoint %s is passed over: its state is damaged", checkpoint.place)
        return None
    return from_bytes(data)


def tidy(store: Storage, train: Train) -> None:
    """Delete the checkpoints that are neither the newest nor among the best."""
    for checkpoint in superseded(found(store), train):
        store.delete(f"{checkpoint.place}/{_FACTS}")
        store.delete(f"{checkpoint.place}/{_STATE}")


def superseded(checkpoints: Sequence[Checkpoint], train: Train) -> list[Checkpoint]:
    """Which checkpoints need not be kept: all but the newest and the keep_checkpoints best."""
    best = sorted(checkpoints, key=lambda one: _rank(one, train), reverse=True)
    newest = max(checkpoints, key=lambda one: one.epochs)
    kept = {one.place for one in [newest, *best[: train.keep_checkpoints]]}
    return [one for one in checkpoints if one.place not in kept]


def best(checkpoints: Sequence[Checkpoint], train: Train) -> Checkpoint:
    """The checkpoint with the best monitored score; the earlier one of equals."""
    return max(checkpoints, key=lambda one: _rank(one, train))


def to_bytes(state: State) -> bytes:
    """A list of arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    named = {f"{index:04d}": value for index, value in enumerate(state)}
    np.savez(buffer, allow_pickle=False, **named)
    return buffer.getvalue()


def from_bytes(data: bytes) -> State:
    """The list of arrays of an .npz file."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return [file[name] for name in sorted(file.files)]


def _rank(checkpoint: Checkpoint, train: Train) -> tuple[float, int]:
    score = checkpoint.history[-1][train.monitor]
    return direction(train.monitor) * score, -checkpoint.epochs


def _read(store: Storage, key: str) -> Checkpoint | None:
    try:
        facts = json.loads(store.read(key))
        return Checkpoint(
            key.split("/")[0], facts["epochs"], tuple(facts["history"]), facts["sha256"]
        )
    except (ValueError, KeyError, MissingError) as error:
        log.warning("checkpoint %s is passed over: %s", key, error)
        return None
