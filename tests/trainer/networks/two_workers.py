"""One of the two workers of test_registry.py: trains every network for two steps.

Prints the losses of the steps by network as JSON.
"""

import json
import os
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras

from contract.config import Config
from tests.trainer.networks.cases import CASES
from trainer.data.pipeline import WorkerRank
from trainer.training import train_loop


def main() -> None:
    """Train every network of the table."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    strategy = train_loop.create_strategy(WorkerRank(rank, 2))
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    random = np.random.default_rng(rank)
    images = random.random((2, 32, 32, 1), np.float32)
    masks = (random.random((2, 32, 32, 1)) > 0.8).astype(np.float32)
    losses = {}
    for name, case in CASES.items():
        network = {"name": name, "image_size": 32, **case.small}
        config = Config.model_validate({"network": network, "train": {"batch_size": 4}})
        with strategy.scope():
            model = train_loop.build_compiled_model(config)
        model.optimizer.learning_rate = 1e-3
        data = tf.data.Dataset.from_tensors((images, masks)).repeat()
        distributed = strategy.distribute_datasets_from_function(lambda _, data=data: data)
        history = model.fit(distributed, steps_per_epoch=1, epochs=2, verbose=0)
        losses[name] = history.history["loss"]
    sys.stdout.write(json.dumps(losses) + "\n")


if __name__ == "__main__":
    main()
