"""The speed of training on this machine, from a few steps of the network on random slices.

While other programs use the cores, a step takes several times as long, and says nothing about a
training that runs later: such a measurement is not used.
"""

import logging
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from contract.cli.log_setup import configure_libraries
from contract.config import Config, validate
from trainer.planning.step_time import NetworkShape

_STEPS, _LIMIT_S = 10, 20.0
# The threads of a step use about 85 % of two cores on an idle machine, and less on a busy one.
_MIN_CPU_USE, _MAX_CORES = 0.6, 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepSeconds:
    """Median seconds of a training step: by the clock, and of all threads together."""

    wall: float
    cpu: float

    def is_disturbed(self, cpus: int, gpus: int) -> bool:
        """Whether other programs used the cores of a worker without a GPU."""
        return not gpus and self.cpu < _MIN_CPU_USE * min(cpus, _MAX_CORES) * self.wall


def measure_speed(config: Config, shape: NetworkShape) -> float | None:
    """Measure in a process of its own, whose threads and GPU memory end with it.

    Args:
        config: The settings.
        shape: The size of their network.

    Returns:
        Multiply-adds of training per second of one worker alone; None if other programs use the
        machine, or its memory is too small.
    """
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=configure_libraries) as pool:
        try:
            seconds = pool.submit(time_steps, config.model_dump(mode="json")).result()
        except BrokenProcessPool:
            _log.warning(
                "the process that measures training steps was killed, probably because the memory "
                "was full: the time is estimated instead"
            )
            return None
    train = config.train
    if seconds.is_disturbed(train.cpus_per_worker, train.gpus_per_worker):
        _log.warning(
            "other programs use this machine (a training step took %.1f s, and %.1f s of CPU): the "
            "time is estimated instead",
            seconds.wall,
            seconds.cpu,
        )
        return None
    classes = len(config.data.segmentation_classes)
    work = 3 * shape.multiply_adds(config.input_channels, classes)
    return work * train.batch_size / train.num_workers / seconds.wall


def time_steps(settings: dict[str, Any]) -> StepSeconds:
    """The time of a training step of one worker's part of a batch, after the first two.

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
    steps: list[StepSeconds] = []
    start = time.monotonic()
    for step in range(2 + _STEPS):
        wall, cpu = time.monotonic(), time.process_time()
        # Reads the loss, which waits for a GPU.
        model.train_on_batch(*batch)
        if step >= 2:
            steps.append(StepSeconds(time.monotonic() - wall, time.process_time() - cpu))
        if steps and time.monotonic() - start > _LIMIT_S:
            break
    return StepSeconds(
        statistics.median(step.wall for step in steps),
        statistics.median(step.cpu for step in steps),
    )
