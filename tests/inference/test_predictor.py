"""A bundle is sufficient for prediction, in a process without Keras and without the trainer."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import inference
from contract.confusion import confusion_counts
from contract.errors import BundleError, DataError
from contract.imaging.encode import encode_image, encode_stack
from contract.imaging.post_processing import PostProcessing
from contract.storage import LocalStorage
from inference.predictor import load_predictor
from tests.inference.conftest import IMAGE_SIZE, MakeBundle
from tests.inference.test_engines import SHAPES, random_slices
from tests.waiting import HANG_TIMEOUT_S

ROOT = Path(__file__).parents[2]


def test_the_mask_is_the_bright_rectangle(bright_bundle: LocalStorage, tmp_path: Path) -> None:
    image = np.full((64, 96, 1), 20, np.uint8)
    image[10:40, 20:60] = 220
    segmentation = inference.load_bundle(bright_bundle.url).predict(image[..., 0])
    assert segmentation.mask.dtype == np.uint8
    assert confusion_counts(segmentation.mask, image[..., 0] > 100).dice > 0.95
    assert segmentation.probability is None
    path = tmp_path / "slice.png"
    path.write_bytes(encode_image(image))
    from_file = inference.load_bundle(bright_bundle.url).predict(path, probability=True)
    np.testing.assert_array_equal(from_file.mask, segmentation.mask)
    assert from_file.probability is not None
    assert 0 <= from_file.probability.min() < from_file.probability.max() <= 1


def test_slices_of_different_shapes_keep_their_order(bright_bundle: LocalStorage) -> None:
    predictor = load_predictor(bright_bundle)
    images = [random_slices(np.uint8, shape)[0] for shape in SHAPES for _ in range(2)]
    images += [random_slices(np.int32, shape)[0] for shape in SHAPES]
    segmentations = predictor.predict_batch(images, probability=True)
    for image, segmentation in zip(images, segmentations, strict=True):
        (expected,) = predictor.predict_batch([image], probability=True)
        assert segmentation.mask.shape == image.shape[:2]
        assert expected.probability is not None
        assert segmentation.probability is not None
        np.testing.assert_allclose(segmentation.probability, expected.probability, atol=1e-5)
    assert predictor.predict_batch([]) == []


def test_a_changed_file_of_the_bundle_is_an_error(
    bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    shutil.copytree(bright_bundle.path, tmp_path, dirs_exist_ok=True)
    (tmp_path / "saved_model/saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"saved_model/saved_model\.pb"):
        load_predictor(LocalStorage(tmp_path))


def test_a_volume_has_the_steps_that_slices_cannot_have(
    make_bundle: MakeBundle, caplog: pytest.LogCaptureFixture
) -> None:
    """The small part is the only one of its slice, but not of the volume."""
    bundle = make_bundle(post_processing=PostProcessing(largest_component="patient"))
    predictor = inference.load_bundle(bundle.url)
    (warning,) = [line for line in caplog.messages if "is not applied to the single slices" in line]
    assert 'write a bundle with "slice" by `segfleet export`' in warning
    voxels = np.full((5, IMAGE_SIZE, IMAGE_SIZE), 20, np.int16)
    voxels[:2, 4:20, 4:20] = 220
    voxels[4, 4:12, 4:12] = 220
    assert predictor.predict(voxels[4]).mask.any()
    masks = predictor.predict_volume(voxels, batch_size=2)
    for index in (0, 1):
        np.testing.assert_array_equal(masks[index], predictor.predict(voxels[index]).mask)
    assert masks[0].any()
    assert not masks[2:].any()
    with pytest.raises(DataError, match=r"\(32, 32\) is not a volume: pass \[slices, H, W\]"):
        predictor.predict_volume(voxels[0])


PREDICT_SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from contract.storage import LocalStorage
from inference.predictor import load_predictor
predictor = load_predictor(LocalStorage(Path(sys.argv[1])), threads=1, gpu=sys.argv[2] == "gpu")
predictor.predict_batch([np.zeros((20, 20, 1), np.uint8)])
modules = {"keras", "tf_keras", "trainer", "tensorflow", "openvino_telemetry.main", "ray"}
print(predictor.engine.name, *sorted(modules & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", "OpenVINO"), ("gpu", "TensorFlow tensorflow")]
)
def test_prediction_imports_no_keras_and_no_trainer(
    bright_bundle: LocalStorage, device: str, expected: str
) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", PREDICT_SCRIPT, str(bright_bundle.path), device],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
        check=True,
    )
    assert completed.stdout.strip() == expected


def test_a_bundle_with_neighbours_is_given_stacks(
    stack_bundle: LocalStorage, tmp_path: Path
) -> None:
    volume = np.full((3, 64, 96), 20, np.uint8)
    for index, each in enumerate(volume):
        each[:, 10 + 30 * index : 20 + 30 * index] = 220
    predictor = load_predictor(stack_bundle)
    stack = predictor.predict(volume.transpose(1, 2, 0))
    assert confusion_counts(stack.mask, volume[2] > 100).dice > 0.9
    (tmp_path / "stack.tif").write_bytes(encode_stack(list(volume)))
    from_file = predictor.predict(tmp_path / "stack.tif")
    np.testing.assert_array_equal(from_file.mask, stack.mask)
    alone = predictor.predict(volume[0])
    assert confusion_counts(alone.mask, volume[0] > 100).dice > 0.9
    (tmp_path / "color.png").write_bytes(encode_image(np.dstack([volume[0]] * 3)))
    in_color = predictor.predict(tmp_path / "color.png")
    np.testing.assert_array_equal(in_color.mask, alone.mask)
    with pytest.raises(DataError, match=r"pass \[H, W\], \[H, W, 1\] or \[H, W, 3\]"):
        predictor.predict(np.zeros((64, 96, 5), np.uint8))
