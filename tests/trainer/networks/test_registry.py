"""The contract of every network: shapes, gradients, training, export, and what it can learn."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from contract.config import NETWORKS, Config, Network, network_name
from inference.engines import OpenVinoEngine, TensorFlowEngine
from tests.small import WINDOW
from tests.trainer.networks.cases import CASES
from trainer.export import saved_model
from trainer.networks.layers import find_dropout_layers
from trainer.networks.registry import BUILDERS, BuiltNetwork, build_network
from trainer.training.train_loop import build_compiled_model

SECTIONS = {network_name(section): section for section in NETWORKS}


def section(name: str, **settings: Any) -> Network:
    """The settings of a network's small variant."""
    return SECTIONS[name].model_validate(
        {"name": name, "image_size": 32, **CASES[name].small, **settings}
    )


def disks(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy slices [n, H, W, 1] in 0..1 with a bright disk each, and its masks."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    images, masks = [], []
    for _ in range(count):
        y, x = random.uniform(10, height - 10), random.uniform(10, width - 10)
        mask = (rows - y) ** 2 + (columns - x) ** 2 < random.uniform(5, 8) ** 2
        images.append(0.3 + 0.3 * mask + random.normal(0, 0.1, mask.shape))
        masks.append(mask)
    stacked = np.clip(np.array(images), 0, 1), np.array(masks)
    return stacked[0][..., None].astype(np.float32), stacked[1][..., None].astype(np.float32)


def test_every_network_is_in_the_tables() -> None:
    assert set(CASES) == set(BUILDERS) == set(SECTIONS)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_the_gradient_reaches_every_weight_at_any_size(name: str) -> None:
    """Three classes, five channels, and sides that the levels of no network divide."""
    built = build_network(section(name, image_size=[33, 42]), 3, 5)
    for layer in find_dropout_layers(built.training_model):
        layer.seed_function = lambda: tf.constant([1, 2], tf.int64)
    slices = np.random.default_rng(0).random((2, 33, 42, 5), np.float32)
    with tf.GradientTape() as tape:
        maps = built.training_model(slices, training=True)
        loss = tf.reduce_mean(maps * tf.random.stateless_uniform(tf.shape(maps), (1, 2)))
    assert maps.shape[:3] == (2, 33, 42)
    variables = built.training_model.trainable_variables
    gradients = tape.gradient(loss, variables)
    missing = [
        variable.name
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is None or not np.isfinite(tf.convert_to_tensor(gradient).numpy()).all()
    ]
    assert not missing
    probability = built.inference_model(slices, training=False).numpy()
    assert probability.shape == (2, 33, 42, 3)
    assert probability.dtype == np.float32
    assert probability.min() >= 0
    assert probability.sum(axis=-1).max() <= 1 + 1e-5


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_network_has_the_documented_number_of_parameters(name: str) -> None:
    case = CASES[name]
    settings = {"name": name, "image_size": 256, **case.reference}
    model = build_network(SECTIONS[name].model_validate(settings), 1, 1).inference_model
    assert count_parameters(model) == case.parameters


def test_the_documented_numbers_are_those_of_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "networks.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(rows) == set(CASES)
    counts = {name: case.parameters for name, case in CASES.items()}
    # Its case has one of the twelve layers of the transformer, because building it takes seconds.
    counts["trans_unet"] += 11 * 7_087_872
    assert [name for name, count in counts.items() if f"{count:,}" not in rows[name]] == []


def count_parameters(model: keras.Model) -> int:
    """The trainable parameters of a model."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_what_a_network_learns_is_what_its_bundle_serves(name: str, tmp_path: Path) -> None:
    """It overfits four slices; its weights survive the file; both engines serve its masks."""
    case = CASES[name]
    config = Config.model_validate(
        {
            "network": {"name": name, "image_size": 32, "dropout_rate": 0.0, **case.small},
            "train": {"batch_size": 4, "num_workers": 1, "precision": "float32"},
        }
    )
    images, masks = disks(4, 32, 32)
    model = build_compiled_model(config)
    model.optimizer.learning_rate = case.learning_rate
    data = tf.data.Dataset.from_tensors((images, masks)).repeat()
    model.fit(data, steps_per_epoch=case.steps, epochs=1, verbose=0)

    exported = saved_model.build_inference_model(config.network, 1, 1, model.get_weights())
    probability = exported(images, training=False).numpy()
    assert np.array_equal(model(images, training=False)[..., :1].numpy(), probability)
    dice = 2 * (masks * (probability > 0.5)).sum() / (masks.sum() + (probability > 0.5).sum())
    assert dice > 0.9

    module = saved_model.SegmentationModule(exported, config.network, WINDOW, config.predict, 1, 1)
    saved_model.save_graph(module, tmp_path / "saved_model")
    raw = np.round(images * 255).astype(np.uint8)
    tensorflow = TensorFlowEngine(tmp_path, 1).infer(raw)
    openvino = OpenVinoEngine(tmp_path, 1).infer(raw)
    assert np.abs(tensorflow[0] - openvino[0]).max() < 1e-3
    differs = tensorflow[1] != openvino[1]
    assert np.abs(tensorflow[0][..., 0][differs] - 0.5).max(initial=0.0) < 1e-3


def run_workers(count: int) -> list[dict[str, Any]]:
    """What each of the workers of two_workers.py finds, all at once."""
    ports = []
    for _ in range(count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    workers = [f"127.0.0.1:{port}" for port in ports]
    processes = []
    for rank in range(count):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        environment = {"TF_CONFIG": json.dumps(task)} if count > 1 else {}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.trainer.networks.two_workers"],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return [json.loads(text.splitlines()[-1]) for text in printed]


@pytest.fixture(scope="module")
def pair() -> list[dict[str, Any]]:
    return run_workers(2)


def test_every_network_trains_on_two_workers_in_mixed_precision(
    pair: list[dict[str, Any]],
) -> None:
    first, second = (each["losses"] for each in pair)
    assert first == second
    assert set(first) == set(BUILDERS)
    assert all(np.isfinite(losses).all() and len(losses) == 2 for losses in first.values())


def test_two_workers_compute_the_gradient_of_one(pair: list[dict[str, Any]]) -> None:
    (alone,) = run_workers(1)
    for each in pair:
        assert each["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert each["weights"] == pytest.approx(alone["weights"], rel=1e-5)


def test_a_step_of_two_workers_waits_for_loss_and_gradients_only(
    pair: list[dict[str, Any]],
) -> None:
    assert [each["collectives"] for each in pair] == [2, 2]


def test_the_state_has_the_mean_of_the_moving_statistics(pair: list[dict[str, Any]]) -> None:
    assert [each["state differs"] for each in pair] == [[], []]
    assert pair[0]["moving mean"] == pair[1]["moving mean"]


def test_a_network_without_further_outputs_is_one_model() -> None:
    built: BuiltNetwork = build_network(section("unet"), 1, 1)
    assert built.training_model is built.inference_model
    deep = build_network(section("unet", deep_supervision=True), 2, 1)
    assert deep.training_model.output_shape == (None, 32, 32, 4)
    assert deep.inference_model.output_shape == (None, 32, 32, 2)
    assert deep.layout.weights == (2 / 3, 1 / 3)
    assert len(deep.training_model.weights) == len(deep.inference_model.weights)
