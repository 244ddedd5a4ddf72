"""Augmentation on the CPU and on the device, and the time that a training waits for its batches.

Argument: "quick" for slices of 64 px and a tiny network, "full" for slices of 512 px and the
network of 7 levels. Prints a line of JSON for each measurement as soon as it is made.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import tensorflow as tf
import tf_keras as keras

from benchmarks.input_pipeline import open_dataset, rate, settings
from contract.config import Config
from trainer.components import precision
from trainer.components.class_maps import one_hot
from trainer.data.augmentation import augment_batch, draw
from trainer.training.train_loop import build_compiled_model

_VALUES = {
    "full": {
        "network.image_size": 512,
        "network.num_layers": 7,
        "network.base_filters": 32,
        "network.max_filters": 512,
        "train.batch_size": 32,
    },
    "quick": {"network.image_size": 64, "network.base_filters": 4, "train.batch_size": 4},
}
_SECONDS = {"full": 5.0, "quick": 0.2}


def main() -> None:
    """Make all measurements on the phantom."""
    size = sys.argv[1]
    seconds = _SECONDS[size]
    with tempfile.TemporaryDirectory() as folder:
        config = settings(folder, "demo.toml", **_VALUES[size])
        batches = iter(open_dataset(config))
        count = config.train.batch_size
        show(
            "augmented by the pipeline, on the CPUs, slices/s",
            rate(lambda: next(batches), count, seconds, 3),
        )
        show("augmented on the device, slices/s", rate(device_step(config), count, seconds, 3))
        step, waiting = measure_wait(config, batches, 4 * seconds)
        show("ms of a training step", 1000 * step)
        show("of it waiting for the batch, %", 100 * waiting / step)


def show(name: str, value: float) -> None:
    """Print a measurement."""
    print(json.dumps([name, f"{value:.3g}"]), flush=True)


def device_step(config: Config) -> Callable[[], Any]:
    """A step that augments one batch on the first GPU, or on the CPUs without one."""
    height, width = config.network.image_shape
    count, augment = config.train.batch_size, config.data.augment
    images = tf.random.stateless_uniform([count, height, width, 1], (1, 2))
    masks = one_hot(tf.cast(images[:, :, :, 0] > 0.5, tf.uint8), 1)
    drawn = [draw(tf.constant([1, n]), augment, (height, width, 1)) for n in range(count)]
    numbers = {name: tf.stack([each[name] for each in drawn]) for name in drawn[0]}

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        augmented, mask = augment_batch(images, masks, numbers, augment)
        return tf.reduce_sum(augmented) + tf.reduce_sum(mask)

    return lambda: step().numpy()


def measure_wait(config: Config, batches: Any, seconds: float) -> tuple[float, float]:
    """Seconds of a training step, and of waiting for its batch."""
    policy = precision.select_policy(
        "auto", precision.read_cpu_flags(), precision.gpu_compute_capability()
    )
    keras.mixed_precision.set_global_policy(policy)
    model = build_compiled_model(config)
    for images, masks in islice(batches, 3):
        model.train_on_batch(images, masks)
    steps, waited, start = 0, 0.0, time.monotonic()
    while time.monotonic() - start < seconds:
        asked = time.monotonic()
        images, masks = next(batches)
        waited += time.monotonic() - asked
        model.train_on_batch(images, masks)
        steps += 1
    return (time.monotonic() - start) / steps, waited / steps


if __name__ == "__main__":
    main()
