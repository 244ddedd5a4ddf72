"""One of the two workers of tests/end_to_end/test_networks.py, or one worker alone.

Trains every network for two steps in mixed precision, then one network in float32 as a training
does. Prints what it finds as JSON. The samples of two workers together are those of one alone.
"""

import json
import os
import sys
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from contract.config import Config
from tests.trainer.networks.cases import CASES
from trainer.components.encoder_rate import set_encoder_lr_factor
from trainer.data.pipeline import WorkerRank
from trainer.networks.registry import encoder_layers
from trainer.training import train_loop
from trainer.training.model_state import StateReader, WeightAverages, state_variables

SAMPLES = 4
_SMALL = {"num_layers": 2, "base_filters": 4, "dropout_rate": 0.0}


def main() -> None:
    """Train, and print the results."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf_config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    rank = WorkerRank(tf_config["task"]["index"], 2) if tf_config else WorkerRank()
    strategy = train_loop.create_strategy(rank)
    results: dict[str, Any] = {}
    if tf_config:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        results["losses"] = {
            name: train(dict(case.small), strategy, rank, name=name).history.history["loss"]
            for name, case in CASES.items()
        }
        keras.mixed_precision.set_global_policy("float32")
    results["collectives"] = count_collectives(train(_SMALL, strategy, rank))
    batch = train({**_SMALL, "normalization": "batch"}, strategy, rank)
    state = StateReader(batch).read()
    expected = [variable.numpy() for variable in state_variables(batch)]
    results["state differs"] = [
        index for index, (a, b) in enumerate(zip(state, expected, strict=True)) if (a != b).any()
    ]
    moving = next(v for v in batch.weights if "moving_mean" in v.name)
    results["moving mean"] = moving.numpy().tolist()
    if tf_config:
        results["encoder"] = train_frozen(strategy, rank)
    # With sgd a gradient of the wrong size changes the weights, with adam hardly.
    plain = train(_SMALL, strategy, rank, optimizer="sgd", steps=5)
    results["weights"] = [float(np.abs(value).sum()) for value in plain.get_weights()]
    results["loss"] = plain.history.history["loss"]
    # A loss that is a mean over the samples is the same however they are divided into parts.
    averaged = train(
        _SMALL,
        strategy,
        rank,
        optimizer="sgd",
        steps=3,
        loss="bce_lovasz_loss",
        accumulate=2,
        ema_decay=0.5,
    )
    WeightAverages(averaged).exchange()
    results["averages"] = [float(np.abs(value).sum()) for value in averaged.get_weights()]
    sys.stdout.write(json.dumps(results) + "\n")


def train(
    settings: dict[str, Any],
    strategy: tf.distribute.Strategy,
    rank: WorkerRank,
    name: str = "unet",
    optimizer: str = "adamw",
    steps: int = 2,
    **settings_of_train: Any,
) -> keras.Model:
    """A network after some steps on this worker's samples, an epoch each."""
    network = {"name": name, "image_size": 32, **settings}
    config = Config.model_validate(
        {
            "network": network,
            "train": {"batch_size": SAMPLES, "optimizer": optimizer, **settings_of_train},
        }
    )
    with strategy.scope():
        model = train_loop.build_compiled_model(config)
    fit(model, strategy, rank, steps)
    return model


def fit(model: keras.Model, strategy: tf.distribute.Strategy, rank: WorkerRank, steps: int) -> None:
    """Train for some steps on this worker's samples, an epoch each."""
    model.optimizer.learning_rate = 1e-2
    random = np.random.default_rng(0)
    images = random.random((SAMPLES, 32, 32, 1), np.float32)
    masks = (random.random((SAMPLES, 32, 32, 1)) > 0.8).astype(np.float32)
    own = slice(
        rank.rank * SAMPLES // rank.world_size, (rank.rank + 1) * SAMPLES // rank.world_size
    )
    data = tf.data.Dataset.from_tensors((images[own], masks[own])).repeat()
    distributed = strategy.distribute_datasets_from_function(lambda _: data)
    model.fit(distributed, steps_per_epoch=1, epochs=steps, verbose=0)


def train_frozen(strategy: tf.distribute.Strategy, rank: WorkerRank) -> dict[str, list[float]]:
    """The sums of the weights of an encoder at the start, and after two steps of each kind."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    network = {"image_size": 32, **_SMALL, "normalization": "batch"}
    settings = {"batch_size": SAMPLES, "freeze_encoder_epochs": 1}
    with strategy.scope():
        model = train_loop.build_compiled_model(
            Config.model_validate({"network": network, "train": settings})
        )
    sums = [encoder_sums(model)]
    for factor in (0.0, 1.0):
        set_encoder_lr_factor(model, factor)
        fit(model, strategy, rank, 2)
        sums.append(encoder_sums(model))
    keras.mixed_precision.set_global_policy("float32")
    return dict(zip(("start", "frozen", "trained"), sums, strict=True))


def encoder_sums(model: keras.Model) -> list[float]:
    """The sum of each weight of the encoder, moving statistics included."""
    return [
        float(weight.numpy().sum()) for layer in encoder_layers(model) for weight in layer.weights
    ]


def count_collectives(model: keras.Model) -> int:
    """The collectives in the graph of a training step."""
    (function,) = model.train_tf_function._list_all_concrete_functions()
    return sum(each.type.startswith("Collective") for each in function.graph.get_operations())


if __name__ == "__main__":
    main()
