"""The first step of two workers of Ray's own TensorflowTrainer on random numbers.

Arguments: the settings, and a folder in which a worker writes the time of the end of its step to
the file `finished`.
"""

import sys
import time
from pathlib import Path

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.tensorflow import TensorflowTrainer


def train_loop(paths: dict[str, str]) -> None:
    """Train for one step; runs in each worker."""
    import numpy as np
    import tensorflow as tf

    # The strategy has to be made before any operation of TensorFlow.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    from benchmarks.programs.plain_model import build_plain_model
    from contract.config.loader import load_config

    config = load_config(paths["config"])
    with strategy.scope():
        model = build_plain_model(config)
    shape, batch = config.network.image_shape, config.train.batch_size // 2
    slices = np.random.rand(batch, *shape, config.network.image_channels).astype("float32")
    data = tf.data.Dataset.from_tensors((slices, (slices[..., :1] > 0.9).astype("float32")))
    batches = strategy.distribute_datasets_from_function(lambda _: data.repeat())
    model.fit(batches, steps_per_epoch=1, epochs=1, verbose=0)
    Path(paths["finished"]).write_text(str(time.time()), encoding="utf-8")


def main() -> None:
    """Start Ray and train."""
    ray.init(num_cpus=2, log_to_driver=False)
    TensorflowTrainer(
        train_loop,
        train_loop_config={"config": sys.argv[1], "finished": f"{sys.argv[2]}/finished"},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=sys.argv[2]),
    ).fit()


if __name__ == "__main__":
    main()
