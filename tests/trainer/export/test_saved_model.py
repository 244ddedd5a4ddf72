"""The exported graph: no skew to training, tiles, and loading by a process without our code."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Config, Data, Train
from contract.imaging.intensity_scaling import IntensityScaling
from contract.tensorflow_variables import TENSORFLOW_VARIABLES
from tests.small import WINDOW, balance, write_split
from trainer.data.pipeline import WorkerRank, load_sample, validation_dataset
from trainer.data.preprocessing import resize, resize_slices, standardize
from trainer.export import saved_model
from trainer.training.train_loop import seeded_initializers

RANDOM = np.random.default_rng(0)
SMALL = {"image_size": 32, "num_layers": 3, "base_filters": 4, "normalization": "batch"}


FOREGROUND = IntensityScaling(40.25, 199.5, mean=120.3, std=31.7)


def create_module(
    config: Config, scaling: IntensityScaling = WINDOW
) -> saved_model.SegmentationModule:
    num_classes = len(config.data.segmentation_classes)
    model = saved_model.build_inference_model(config.network, num_classes, config.input_channels)
    return saved_model.SegmentationModule(model, config, scaling)


def create(**predict: object) -> tuple[Config, saved_model.SegmentationModule]:
    config = Config.model_validate({"network": SMALL, "predict": predict})
    return config, create_module(config)


def copy_weights(
    source: saved_model.SegmentationModule, other: saved_model.SegmentationModule
) -> None:
    """Give another module the weights of one."""
    for mine, theirs in zip(source.weights, other.weights, strict=True):
        theirs.assign(mine)


@pytest.mark.parametrize("scaling", [WINDOW, FOREGROUND], ids=["window", "foreground"])
def test_serving_sees_what_training_saw(scaling: IntensityScaling, tmp_path: Path) -> None:
    segmentation = create_module(Config.model_validate({"network": SMALL}), scaling)
    raw = RANDOM.integers(0, 255, (1, 90, 70, 3), np.uint8)
    cached = resize_slices(tf.constant(raw), (32, 32), 1, Data()).numpy().astype(np.uint8)
    split = write_split(tmp_path, cached, np.zeros((1, 32, 32), np.uint8))
    image, _ = load_sample(split, scaling, 0)
    trained = segmentation.forward(tf.constant(standardize(image[None], scaling)))
    expected = resize(trained, 90, 70)[0]
    served = segmentation.segment(tf.constant(raw))
    assert np.abs(served["probability"][0] - expected).max() < 1e-5
    assert np.array_equal(served["mask"][0], (expected.numpy()[..., 0] > 0.5).astype(np.uint8))


@pytest.mark.parametrize("sliding_window", [False, True])
@pytest.mark.parametrize("scaling", [WINDOW, FOREGROUND], ids=["window", "foreground"])
def test_the_graph_normalizes_like_the_pipeline(
    scaling: IntensityScaling, sliding_window: bool, tmp_path: Path
) -> None:
    config, _ = create(sliding_window=sliding_window)
    segmentation = create_module(config, scaling)
    raw = RANDOM.integers(0, 256, (3, 32, 32, 1), np.uint8)
    split = write_split(tmp_path, raw, np.zeros((3, 32, 32), np.uint8))
    batches = validation_dataset(split, scaling, Train(batch_size=3, num_workers=1), WorkerRank())
    (images, _, _) = next(iter(batches.as_numpy_iterator()))
    seen: list[np.ndarray] = []

    def remember(slices: tf.Tensor) -> tf.Tensor:
        seen.append(slices.numpy())
        return slices

    segmentation.forward = remember
    segmentation.segment(tf.constant(raw))
    assert np.array_equal(seen[0], images)


def test_a_tiled_bundle_asks_the_network_at_full_resolution() -> None:
    config, segmentation = create(sliding_window=True)
    raw = RANDOM.integers(0, 255, (1, 32, 32, 1), np.uint8)
    image = raw.astype(np.float32) / 255.0
    expected = segmentation.forward(tf.constant(image))[0]
    assert config.predict.sliding_window
    assert np.abs(segmentation.segment(tf.constant(raw))["probability"][0] - expected).max() < 1e-5


def test_a_window_of_another_size_is_resized_to_the_network() -> None:
    _, windows = create(sliding_window=True, window_size=[64, 96], overlap=0.5)
    _, resized = create()
    copy_weights(resized, windows)
    raw = tf.constant(RANDOM.integers(0, 255, (2, 64, 96, 1), np.uint8))
    expected = resized.segment(raw)["probability"]
    assert np.abs(windows.segment(raw)["probability"] - expected).max() < 1e-6
    # Windows without overlap are independent of each other.
    _, separate = create(sliding_window=True, window_size=[64, 96], overlap=0.0)
    copy_weights(resized, separate)
    both = tf.concat([raw[:1], raw[1:]], axis=2)
    expected = tf.concat([expected[:1], expected[1:]], axis=2)
    assert np.abs(separate.segment(both)["probability"] - expected).max() < 1e-6


@pytest.mark.parametrize("classes", [{}, {"liver": 1, "kidney": 2}])
def test_windows_of_stacks_and_of_several_classes_are_resized(classes: dict[str, int]) -> None:
    data = {"neighbours": 1, "gamma": 1.2}
    if classes:
        data |= {"source": "folder", "root": "slices", "classes": classes}
    network = {"image_size": 32, "num_layers": 3, "base_filters": 4}
    resized, windows = (
        create_module(Config.model_validate({"network": network, "data": data, "predict": predict}))
        for predict in ({}, {"sliding_window": True, "window_size": 64})
    )
    copy_weights(resized, windows)
    raw = tf.constant(RANDOM.integers(0, 255, (1, 64, 64, 3), np.uint8))
    expected = resized.segment(raw)["probability"]
    assert expected.shape[-1] == (len(classes) or 1)
    assert np.abs(windows.segment(raw)["probability"] - expected).max() < 1e-6


def test_a_mask_can_be_the_intersection_of_windows_and_resized_slice() -> None:
    _, resized = create()
    _, windows = create(sliding_window=True)
    _, both = create(sliding_window=True, intersect_resized=True)
    raw = tf.constant(RANDOM.integers(0, 255, (1, 80, 70, 1), np.uint8))
    balance(resized.weights[-1], resized.segment(raw)["probability"])
    for module in (windows, both):
        copy_weights(resized, module)
    masks = [module.segment(raw)["mask"].numpy() for module in (resized, windows, both)]
    assert np.array_equal(masks[2], masks[0] & masks[1])
    assert 0 < masks[2].sum() < min(masks[0].sum(), masks[1].sum())


@pytest.mark.parametrize("sliding_window", [False, True])
def test_several_classes_are_indices_of_the_most_probable(sliding_window: bool) -> None:
    config = Config.model_validate(
        {
            "network": SMALL,
            "data": {
                "source": "folder",
                "root": "/slices",
                "classes": {"liver": 1, "kidney": 2},
            },
            "predict": {"sliding_window": sliding_window},
        }
    )
    with seeded_initializers(0):
        segmentation = create_module(config)
    # Random weights with the bias of the start would predict background everywhere.
    segmentation.weights[-1].assign([0.0, 0.0, 0.0])
    raw = RANDOM.integers(0, 255, (2, 70, 50, 1), np.uint8)
    served = {name: value.numpy() for name, value in segmentation.segment(tf.constant(raw)).items()}
    assert served["probability"].shape == (2, 70, 50, 2)
    background = 1.0 - served["probability"].sum(axis=-1, keepdims=True)
    assert background.min() > -1e-5
    expected = np.concatenate([background, served["probability"]], -1).argmax(axis=-1)
    assert len(np.unique(expected)) > 1
    assert (served["mask"] == expected).mean() > 0.999


ELSEWHERE = """
import sys
import numpy as np
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
slices = np.load(sys.argv[2])
answer = loaded.signatures["serving_default"](slices=tf.constant(slices))
wide = loaded.signatures["int32"](slices=tf.constant(slices.astype(np.int32)))
assert np.array_equal(answer["mask"], wide["mask"])
np.save(sys.argv[3], answer["probability"])
foreign = {"trainer", "tf_keras", "contract"} & {name.split(".")[0] for name in sys.modules}
assert not foreign, foreign
"""


def test_a_process_without_our_code_gets_the_same_probabilities(tmp_path: Path) -> None:
    _, segmentation = create()
    saved_model.save_graph(segmentation, tmp_path / "saved_model")
    slices = RANDOM.integers(0, 255, (2, 50, 40, 1), np.uint8)
    np.save(tmp_path / "slices.npy", slices)
    names = [str(tmp_path / name) for name in ("saved_model", "slices.npy", "out.npy")]
    own = {name: v for name, v in os.environ.items() if name not in TENSORFLOW_VARIABLES}
    subprocess.run([sys.executable, "-c", ELSEWHERE, *names], check=True, cwd=tmp_path, env=own)
    expected = segmentation.segment(tf.constant(slices))["probability"]
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() < 1e-5


@pytest.mark.parametrize("sliding_window", [False, True])
def test_a_stack_is_the_input_of_the_network(sliding_window: bool) -> None:
    config = Config.model_validate(
        {
            "network": SMALL,
            "data": {"neighbours": 1},
            "predict": {"sliding_window": sliding_window},
        }
    )
    segmentation = create_module(config)
    raw = RANDOM.integers(0, 255, (2, 32, 32, 3), np.uint8)
    expected = segmentation.forward(tf.constant(raw / np.float32(255)))
    # Three channels are three slices, not a color.
    served = segmentation.segment(tf.constant(raw))["probability"]
    assert np.abs(served - expected).max() < 1e-5
    single = segmentation.segment(tf.constant(raw[..., :1]))["probability"]
    repeated = segmentation.segment(tf.constant(np.repeat(raw[..., :1], 3, axis=-1)))["probability"]
    assert np.array_equal(single, repeated)
    assert np.abs(single - served).max() > 1e-4


def test_serving_sees_the_stack_that_training_saw(tmp_path: Path) -> None:
    config = Config.model_validate({"network": SMALL, "data": {"neighbours": 2}})
    segmentation = create_module(config)
    raw = RANDOM.integers(0, 255, (5, 90, 70, 1), np.uint8)
    cached = resize_slices(tf.constant(raw), (32, 32), 1, Data()).numpy().astype(np.uint8)
    split = write_split(tmp_path, cached, np.zeros((5, 32, 32), np.uint8))
    image, _ = load_sample(replace(split, stacks=np.arange(5)[None]), WINDOW, 0)
    trained = segmentation.forward(tf.constant(image[None]))
    served = segmentation.segment(tf.constant(raw[..., 0].transpose(1, 2, 0)[None]))
    assert np.abs(served["probability"] - resize(trained, 90, 70)).max() < 1e-4
