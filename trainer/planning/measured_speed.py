"""The speed of training on this machine, from a few steps of the network on random slices.

While other programs use the cores, a step takes several times as long, and says nothing about a
training that runs later: such a measurement is not used.
"""

import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from contract.cli.log_setup import configure_libraries
from contract.config import Config, validate
from contract.errors import first_line, last_line
from trainer.planning.step_time import NetworkShape

# The first steps of a process take longer.
_FIRST_STEPS, _STEPS, _LIMIT_S = 3, 20, 20.0
# The threads of a step use about 85 % of two cores on an idle machine, and less on a busy one.
_MIN_CPU_USE, _MAX_CORES = 0.6, 2
# -P: the module is found where this process finds its own, not in the current folder first.
_COMMAND = (sys.executable, "-P", "-m", "trainer.planning.measured_speed")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepSeconds:
    """Median seconds of a training step: by the clock, and of all threads together."""

    wall: float
    cpu: float

    def is_disturbed(self, cpus: int, gpus: int) -> bool:
        """Whether other programs used the cores of a worker without a GPU."""
        return not gpus and self.cpu < _MIN_CPU_USE * min(cpus, _MAX_CORES) * self.wall


class MeasurementError(Exception):
    """The process that times steps gave no result; the message is the reason."""


def measure_speed(config: Config, shape: NetworkShape) -> float | None:
    """Measure in a process of its own, whose threads and GPU memory end with it.

    Args:
        config: The settings.
        shape: The size of their network.

    Returns:
        Multiply-adds of training per second of one worker alone; None, with a warning, if other
        programs use the machine or TensorFlow fails, for example because memory is too small.
    """
    try:
        seconds = run_process(config.model_dump(mode="json"))
    except MeasurementError as error:
        _log.warning("training steps were not measured, their time is estimated: %s", error)
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
    return training_speed(config, shape, seconds.wall)


def training_speed(config: Config, shape: NetworkShape, step_seconds: float) -> float:
    """Multiply-adds of training per second, three times those of a forward pass.

    step_seconds: those of a step of one worker's part of a batch.
    """
    classes = len(config.data.segmentation_classes)
    samples = config.train.batch_size // config.train.num_workers
    return 3 * samples * shape.multiply_adds(config.input_channels, classes) / step_seconds


def run_process(settings: dict[str, Any], command: Sequence[str] = _COMMAND) -> StepSeconds:
    """Time steps in a child process, which is killed if this one is interrupted.

    It does not import the script that calls it, as a child process of multiprocessing does.

    Args:
        settings: The settings of a Config, for JSON.
        command: The program; it reads the settings from its input, and the last line of its output
            is JSON, {"wall": ..., "cpu": ...} or {"error": ...}.

    Raises:
        MeasurementError: The program could not time steps.
    """
    # Where this process finds its modules; an empty entry is the current folder.
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    done = subprocess.run(
        command,
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        raise MeasurementError("the process was killed, probably because the memory was full")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise MeasurementError(f"the process was ended by {name}")
    if done.returncode:
        raise MeasurementError(f"exit code {done.returncode}, {last_line(done.stderr.strip())}")
    result = json.loads(done.stdout.splitlines()[-1])
    if "error" in result:
        raise MeasurementError(result["error"])
    return StepSeconds(**result)


def describe_error(error: Exception) -> str:
    """The type of an error, and the line of its message that says what failed.

    The message of an error within a tf.function begins with the traces of the operations.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    traces = [index for index, line in enumerate(lines) if line.startswith("[[{{node")]
    cause = lines[traces[0] - 1] if traces and traces[0] else first_line(error)
    return f"{type(error).__name__}: {cause}"


def time_steps(settings: dict[str, Any]) -> StepSeconds:
    """The time of a training step of one worker's part of a batch, after the first ones.

    In one call of `fit`, as in a training: a step of `train_on_batch` takes several milliseconds
    more. It stops after 23 steps, or earlier if they take more than 20 seconds.
    """
    config = validate(settings, origin="settings")

    import tensorflow as tf
    import tf_keras as keras

    from trainer.components import precision
    from trainer.training.train_loop import build_compiled_model, configure_process

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
    # The clock, and the CPU time of all threads, at the end of each step.
    walls: list[float] = []
    cpus: list[float] = []

    def end_step(step: int, logs: Any) -> None:
        walls.append(time.monotonic())
        cpus.append(time.process_time())
        if step >= _FIRST_STEPS and walls[-1] - walls[0] > _LIMIT_S:
            model.stop_training = True

    # Keras reads the loss for a callback, which waits for a GPU.
    callback = keras.callbacks.LambdaCallback(on_batch_end=end_step)
    data = tf.data.Dataset.from_tensors(batch).repeat()
    count = _FIRST_STEPS + _STEPS
    model.fit(data, steps_per_epoch=count, verbose=0, callbacks=[callback])
    return StepSeconds(_median_difference(walls), _median_difference(cpus))


def _median_difference(ends: Sequence[float]) -> float:
    """The median time of the steps after the first ones; ends: of every step."""
    return statistics.median(end - start for start, end in pairwise(ends[_FIRST_STEPS - 1 :]))


def main() -> None:
    """Time steps for run_process: settings from standard input, the result to standard output."""
    configure_libraries()
    try:
        result = asdict(time_steps(json.load(sys.stdin)))
    # Any error means that there is no measurement, which a plan can do without.
    except Exception as error:
        result = {"error": describe_error(error)}
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
