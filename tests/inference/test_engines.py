"""Both engines return the same results, and errors of a graph are RuntimeErrors."""

import sys
from pathlib import Path

import numpy as np
import pytest

from contract.errors import BundleError
from contract.storage import LocalStorage
from inference import engines
from inference.engines import OpenVinoEngine, TensorFlowEngine, create_engine

SHAPES = [(64, 64, 1), (64, 64, 3), (33, 90, 1), (7, 5, 3), (1, 1, 1)]


def random_slices(dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (2, *shape))
    return (noise if dtype is np.uint8 else noise - 20).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_both_engines_return_the_same_probabilities(
    bright_bundle: LocalStorage, dtype: type
) -> None:
    openvino, tensorflow = (
        OpenVinoEngine(bright_bundle.path, 2),
        TensorFlowEngine(bright_bundle.path, 2),
    )
    for shape in SHAPES:
        slices = random_slices(dtype, shape)
        for batch in (slices, slices[:1]):
            probability, mask = openvino.infer(batch)
            expected, _ = tensorflow.infer(batch)
            np.testing.assert_allclose(probability, expected, atol=1e-3)
            assert mask.shape == (len(batch), *shape[:2])
            assert probability.shape == (*mask.shape, 1)
            np.testing.assert_array_equal(mask, probability[..., 0] > 0.5)


def test_tensorflow_is_used_if_openvino_cannot_read_the_graph(
    bright_bundle: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_error(*_: object) -> None:
        raise RuntimeError("unsupported operation")

    assert create_engine(bright_bundle.path, threads=1, gpu=False).name == "OpenVINO"
    monkeypatch.setattr(engines, "OpenVinoEngine", raise_error)
    assert create_engine(bright_bundle.path, threads=1, gpu=False).name == "TensorFlow"


def test_a_graph_that_no_engine_can_load_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="TensorFlow cannot load"):
        create_engine(tmp_path, threads=1, gpu=False)


def test_an_error_of_the_graph_is_a_runtime_error(failing_bundle: LocalStorage) -> None:
    engine = create_engine(failing_bundle.path, threads=1, gpu=False)
    assert engine.name == "TensorFlow"
    with pytest.raises(RuntimeError, match="InvalidArgumentError"):
        engine.infer(np.zeros((1, 8, 8, 1), np.uint8))


def test_hidden_modules_are_missing_only_inside_the_block() -> None:
    with engines._hide_modules("sys", "segfleet_absent"):
        with pytest.raises(ImportError):
            __import__("segfleet_absent")
        assert sys.modules["sys"] is sys
    assert "segfleet_absent" not in sys.modules
