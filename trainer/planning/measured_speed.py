"""The speed of training on this machine, from a few steps of the network on random slices."""

import logging
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import numpy as np

from contract.config import Config, validate
from trainer.planning.step_time import NetworkShape

_STEPS, _LIMIT_S = 10, 20.0

_log = logging.getLogger(__name__)


def measure_speed(config: Config, shape: NetworkShape) -> float | None:
    """Multiply-adds of training per second of one worker alone; None if it cannot be measured.

    The steps run in a process of their own, whose threads and GPU memory end with it.

    Args:
        config: The settings; the batch is that of one worker.
        shape: The size of their network.
    """
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        try:
            seconds = pool.submit(time_steps, config.model_dump(mode="json")).result()
        except BrokenProcessPool:
            _log.warning(
                "the process that measures training steps was killed, probably because the memory "
                "was full: the time is estimated instead"
            )
            return None
    classes = len(config.data.segmentation_classes)
    work = 3 * shape.multiply_adds(config.input_channels, classes)
    return work * config.train.batch_size / config.train.num_workers / seconds


def time_steps(settings: dict[str, Any]) -> float:
    """The median seconds of a training step of one worker's part of a batch, after the first two.

    It stops after ten steps, or earlier if they take more than 20 seconds.
    """
    import tensorflow as tf
    import tf_keras as keras

    from trainer.components import precision
    from trainer.training.train_loop import build_compiled_model, configure_process

    config = validate(settings, origin="settings")
    configure_process(config.train)
    policy = precision.select_policy(
        config.train.precision, precision.read_cpu_flags(), precision.gpu_compute_capability()
    )
    keras.mixed_precision.set_global_policy(policy)
    model = build_compiled_model(config)
    batch_size = config.train.batch_size // config.train.num_workers
    rng = np.random.default_rng(0)
    shape = (batch_size, *config.network.image_shape)
    images = rng.random((*shape, config.input_channels), np.float32)
    classes = len(config.data.segmentation_classes)
    masks = rng.random((*shape, classes), np.float32) < 0.5 / classes
    batch = tf.constant(images), tf.constant(masks, tf.float32)
    seconds: list[float] = []
    start = time.monotonic()
    for step in range(2 + _STEPS):
        before = time.monotonic()
        # Reads the loss, which waits for a GPU.
        model.train_on_batch(*batch)
        if step >= 2:
            seconds.append(time.monotonic() - before)
        if seconds and time.monotonic() - start > _LIMIT_S:
            break
    return statistics.median(seconds)
