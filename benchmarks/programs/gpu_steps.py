"""Training steps on one batch: two networks, three number formats, with XLA and without.

Argument: "quick" for a tiny network in one number format, "full" for all of docs/gpu.md. Prints a
line of JSON for each case as soon as it is measured.
"""

import gc
import json
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from benchmarks.training_overhead import PUBLISHED
from contract.config import Config
from contract.errors import first_line
from trainer.components.optimizers import inner_optimizer
from trainer.training.train_loop import build_compiled_model

# nnU-Net's shape of this size, for one GPU (docs/lab-notes.md).
_CAPPED = {"num_layers": 7, "base_filters": 32, "max_filters": 512, "image_size": 512}
_TINY = {"num_layers": 2, "base_filters": 4, "image_size": 32}
_NETWORKS: Mapping[str, Mapping[str, tuple[Mapping[str, Any], int]]] = {
    "full": {"7 levels, batch 32": (_CAPPED, 32), "125 M parameters, batch 2": (PUBLISHED, 2)},
    "quick": {"tiny, batch 2": (_TINY, 2)},
}
_SECONDS = {"full": 4.0, "quick": 0.2}


class Format(NamedTuple):
    """A number format of the features."""

    name: str
    policy: str
    has_tf32: bool
    """Whether convolutions of float32 may round their inputs to TensorFloat-32."""


_FORMATS = {
    "full": (
        Format("bfloat16", "mixed_bfloat16", has_tf32=True),
        Format("TF32", "float32", has_tf32=True),
        Format("float32", "float32", has_tf32=False),
    ),
    "quick": (Format("bfloat16", "mixed_bfloat16", has_tf32=True),),
}


def main() -> None:
    """Measure all cases, those without XLA first."""
    size = sys.argv[1]
    for with_xla in (False, True):
        for name, (network, batch_size) in _NETWORKS[size].items():
            for number_format in _FORMATS[size]:
                case = [name, number_format.name, "yes" if with_xla else "no"]
                try:
                    row = measure(network, batch_size, number_format, with_xla, _SECONDS[size])
                except tf.errors.OpError as error:
                    row = [first_line(error), "", ""]
                print(json.dumps([*case, *row]), flush=True)


def measure(
    network: Mapping[str, Any],
    batch_size: int,
    number_format: Format,
    with_xla: bool,
    seconds: float,
) -> list[str]:
    """Slices a second, seconds of the first step, and GB of GPU memory at most."""
    keras.backend.clear_session()
    gc.collect()
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if has_gpu:
        tf.config.experimental.reset_memory_stats("GPU:0")
    tf.config.experimental.enable_tensor_float_32_execution(number_format.has_tf32)
    keras.mixed_precision.set_global_policy(number_format.policy)
    config = Config.model_validate(
        {"network": network, "train": {"num_workers": 1, "batch_size": batch_size}}
    )
    model = build_compiled_model(config)
    model.jit_compile = with_xla
    # On a GPU, optimizers of Keras compile their updates by themselves.
    inner_optimizer(model).jit_compile = with_xla
    height, width = config.network.image_shape
    shape = (batch_size, height, width, config.network.image_channels)
    images = tf.constant(np.random.default_rng(0).random(shape, np.float32))
    masks = tf.round(images[:, :, :, :1])
    start = time.monotonic()
    model.train_on_batch(images, masks)
    first, steps, start = time.monotonic() - start, 0, time.monotonic()
    while time.monotonic() - start < seconds:
        model.train_on_batch(images, masks)
        steps += 1
    speed = steps * batch_size / (time.monotonic() - start)
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9 if has_gpu else None
    return [f"{speed:.3g}", f"{first:.1f}", "" if peak is None else f"{peak:.1f}"]


if __name__ == "__main__":
    main()
