"""A bundle alone gives masks: the same by both engines, in a process without Keras."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from contract.errors import BundleError
from contract.storage import LocalStorage
from inference.engines import OpenVinoEngine, TensorFlowEngine, create_engine
from inference.predictor import load_predictor

ROOT = Path(__file__).parents[2]
SHAPES = [(64, 64, 1), (64, 64, 3), (33, 90, 1), (7, 5, 3), (1, 1, 1)]


def slices(kind: type, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (2, *shape))
    return (noise if kind is np.uint8 else noise - 20).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_both_engines_give_the_same_probabilities(bright: LocalStorage, kind: type) -> None:
    fast, plain = OpenVinoEngine(bright.path, 2), TensorFlowEngine(bright.path, 2)
    for shape in SHAPES:
        image = slices(kind, shape)
        for batch in (image, image[:1]):
            probability, mask = fast.infer(batch)
            expected, _ = plain.infer(batch)
            np.testing.assert_allclose(probability, expected, atol=1e-3)
            assert probability.shape == mask.shape == (len(batch), *shape[:2])
            np.testing.assert_array_equal(mask, probability > 0.5)


def test_a_bright_rectangle_is_found(bright: LocalStorage) -> None:
    image = np.full((64, 96, 1), 20, np.uint8)
    image[10:40, 20:60] = 220
    (segmentation,) = load_predictor(bright).predict([image])
    expected_mask = image[..., 0] > 100
    assert segmentation.mask.dtype == np.uint8
    assert (
        2
        * (segmentation.mask * expected_mask).sum()
        / (segmentation.mask.sum() + expected_mask.sum())
        > 0.95
    )
    assert segmentation.probability is None


def test_slices_of_many_shapes_keep_their_order(bright: LocalStorage) -> None:
    segmenter = load_predictor(bright)
    mixed = [slices(np.uint8, shape)[0] for shape in SHAPES for _ in range(2)]
    mixed += [slices(np.int16, shape)[0] for shape in SHAPES]
    for image, segmentation in zip(mixed, segmenter.predict(mixed, probability=True), strict=True):
        (alone,) = segmenter.predict([image], probability=True)
        assert segmentation.mask.shape == image.shape[:2]
        assert alone.probability is not None
        assert segmentation.probability is not None
        np.testing.assert_allclose(segmentation.probability, alone.probability, atol=1e-5)
    assert segmenter.predict([]) == []


def test_a_changed_file_is_rejected(bright: LocalStorage, tmp_path: Path) -> None:
    shutil.copytree(bright.path, tmp_path, dirs_exist_ok=True)
    (tmp_path / "saved_model/saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"saved_model/saved_model\.pb"):
        load_predictor(LocalStorage(tmp_path))


def test_what_openvino_cannot_read_is_left_to_tensorflow(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="TensorFlow cannot load"):
        create_engine(tmp_path, threads=1, gpu=False)


def test_what_an_engine_cannot_compute_is_a_runtime_error(failing: LocalStorage) -> None:
    engine = create_engine(failing.path, threads=1, gpu=False)
    assert engine.name == "TensorFlow"
    with pytest.raises(RuntimeError, match="InvalidArgumentError"):
        engine.infer(np.zeros((1, 8, 8, 1), np.uint8))


LOOK = """
import sys
from pathlib import Path
import numpy as np
from contract.storage import LocalStorage
from inference.predictor import load_predictor
segmenter = load_predictor(LocalStorage(Path(sys.argv[1])), threads=1, gpu=sys.argv[2] == "gpu")
segmenter.predict([np.zeros((20, 20, 1), np.uint8)])
loaded = {"keras", "tf_keras", "trainer", "tensorflow", "openvino_telemetry.main", "ray"}
print(segmenter.engine.name, *sorted(loaded & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", "OpenVINO"), ("gpu", "TensorFlow tensorflow")]
)
def test_the_process_loads_no_keras_and_no_trainer(
    bright: LocalStorage, device: str, expected: str
) -> None:
    segmentation = subprocess.run(
        [sys.executable, "-c", LOOK, str(bright.path), device],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert segmentation.stdout.strip() == expected
