"""Weights in files of Keras are read layer by layer, whole models and weights alone."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from trainer.export.keras_h5 import read_h5


def write(file: Path, in_group: bool) -> None:
    with h5py.File(file, "w") as content:
        root = content.create_group("model_weights") if in_group else content
        root.attrs["layer_names"] = [b"second", b"pool", b"first"]
        for number, name in enumerate(("second", "pool", "first")):
            layer = root.create_group(name)
            layer.attrs["weight_names"] = [] if name == "pool" else [f"{name}/kernel:0".encode()]
            if name != "pool":
                layer[f"{name}/kernel:0"] = np.full(2, number)


@pytest.mark.parametrize("in_group", [False, True])
def test_layers_with_weights_are_in_the_order_of_the_file(in_group: bool, tmp_path: Path) -> None:
    write(tmp_path / "a.h5", in_group)
    stored = read_h5(tmp_path / "a.h5")
    assert {name: values[0].tolist() for name, values in stored.items()} == {
        "second": [0, 0],
        "first": [2, 2],
    }
    assert list(stored) == ["second", "first"]


def test_another_file_is_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as content:
        content["data"] = np.zeros(3)
    for name in ("other.h5", "absent.h5"):
        with pytest.raises(ValueError, match=r"is not a complete \.h5 file"):
            read_h5(tmp_path / name)
