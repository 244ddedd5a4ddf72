"""Weights as .npz files, in bundles and in checkpoints."""

import io

import numpy as np
from numpy.typing import NDArray

ModelState = list[NDArray]
"""The values of all variables of a model, its weights first."""


def to_npz(state: ModelState) -> bytes:
    """A list of arrays as the content of an .npz file."""
    buffer = io.BytesIO()
    named = {f"{index:04d}": value for index, value in enumerate(state)}
    np.savez(buffer, allow_pickle=False, **named)
    return buffer.getvalue()


def from_npz(data: bytes) -> ModelState:
    """The list of arrays in an .npz file."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return [file[name] for name in sorted(file.files)]
