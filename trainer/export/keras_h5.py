"""Weights in .h5 files of Keras; imports no TensorFlow."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contract.errors import first_line

if TYPE_CHECKING:
    import h5py

StoredWeights = dict[str, list[NDArray[np.floating]]]
"""The weights of each layer that has any, in the order of the file."""


def read_h5(file: Path) -> StoredWeights:
    """The weights in a file of model.save_weights or model.save.

    Raises ValueError, with a clause that follows the file, if it is incomplete or another file.
    """
    # Imported here so that the driver of a training starts without it.
    import h5py

    try:
        with h5py.File(file) as content:
            # A complete model has its weights in a group.
            root = content if "layer_names" in content.attrs else content["model_weights"]
            return {
                name: [np.asarray(root[name][key]) for key in _names(root[name], "weight_names")]
                for name in _names(root, "layer_names")
                if _names(root[name], "weight_names")
            }
    except (OSError, KeyError) as error:
        raise ValueError(
            f"is not a complete .h5 file with weights of Keras ({first_line(error)})"
        ) from error


def _names(group: "h5py.Group", attribute: str) -> list[str]:
    values = group.attrs[attribute]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
