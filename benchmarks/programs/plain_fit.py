"""A plain Keras fit on arrays in memory.

Arguments: the settings, and a folder with train_x.npy, train_y.npy, valid_x.npy and valid_y.npy.
Prints the seconds of each epoch, validation included, as JSON.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from benchmarks.programs.plain_model import build_plain_model
from contract.config.loader import load_config
from trainer.components import precision


class EpochTimer(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the time."""
        self.began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the seconds since the epoch began."""
        self.seconds.append(time.monotonic() - self.began)


def main() -> None:
    """Train for the epochs of the settings."""
    config, folder = load_config(sys.argv[1]), sys.argv[2]
    tf.config.threading.set_intra_op_parallelism_threads(config.train.cpus_per_worker)
    policy = precision.select_policy(
        config.train.precision, precision.read_cpu_flags(), precision.gpu_compute_capability()
    )
    keras.mixed_precision.set_global_policy(policy)
    model = build_plain_model(config)
    train_x, train_y, valid_x, valid_y = (
        np.load(f"{folder}/{name}.npy") for name in ("train_x", "train_y", "valid_x", "valid_y")
    )
    timer = EpochTimer()
    model.fit(
        train_x,
        train_y,
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        validation_data=(valid_x, valid_y),
        validation_batch_size=config.train.batch_size,
        verbose=0,
        callbacks=[timer],
    )
    print(json.dumps(timer.seconds))


if __name__ == "__main__":
    main()
