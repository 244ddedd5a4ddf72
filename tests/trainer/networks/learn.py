"""What each network learns and serves, in a process of its own: the graphs take gigabytes.

Every network of the table overfits four slices; its weights are set in the network of inference;
both engines run the graph that is exported. Prints the results by network as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from contract.config import Config
from inference.engines import OpenVinoEngine, TensorFlowEngine
from tests.small import WINDOW
from tests.trainer.networks.cases import CASES, NetworkCase
from trainer.export import saved_model
from trainer.training.train_loop import build_compiled_model


def main() -> None:
    """Train and serve every network."""
    images, masks = disks(4, 32, 32)
    results = {}
    for name, case in CASES.items():
        results[name] = learn(name, case, images, masks)
        keras.backend.clear_session()
    sys.stdout.write(json.dumps(results) + "\n")


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


def learn(name: str, case: NetworkCase, images: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
    """The Dice of one network after training, and what may differ after it."""
    config = Config.model_validate(
        {
            "network": {"name": name, "image_size": 32, "dropout_rate": 0.0, **case.small},
            "train": {"batch_size": 4, "num_workers": 1, "precision": "float32"},
        }
    )
    model = build_compiled_model(config)
    model.optimizer.learning_rate = case.learning_rate
    data = tf.data.Dataset.from_tensors((images, masks)).repeat()
    model.fit(data, steps_per_epoch=case.steps, epochs=1, verbose=0)

    exported = saved_model.build_inference_model(config.network, 1, 1, model.get_weights())
    probability = exported(images, training=False).numpy()
    trained = model(images, training=False)[..., :1].numpy()
    predicted = probability > 0.5
    module = saved_model.SegmentationModule(exported, config, WINDOW)
    with tempfile.TemporaryDirectory() as folder:
        saved_model.save_graph(module, Path(folder) / "saved_model")
        raw = np.round(images * 255).astype(np.uint8)
        tensorflow = TensorFlowEngine(Path(folder), 1).infer(raw)
        openvino = OpenVinoEngine(Path(folder), 1).infer(raw)
    differs = tensorflow[1] != openvino[1]
    return {
        "dice": float(2 * (masks * predicted).sum() / (masks.sum() + predicted.sum())),
        "is_equal": bool(np.array_equal(trained, probability)),
        "engines": float(np.abs(tensorflow[0] - openvino[0]).max()),
        # Where the masks of the engines differ, the probability is the threshold.
        "margin": float(np.abs(tensorflow[0][..., 0][differs] - 0.5).max(initial=0.0)),
    }


if __name__ == "__main__":
    main()
