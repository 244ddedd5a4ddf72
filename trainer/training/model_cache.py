"""Compiled networks, kept for the next training in the same process.

Building a network and tracing its training step takes seconds, which may be more than the epochs
of a sweep's trial. Two trainings whose graphs are equal (learning rate and its schedule are not
part of a graph) share one network; it starts with the same initial weights each time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import tf_keras as keras
from numpy.typing import NDArray

from contract.config import Config
from contract.config.root import RUNTIME_KEYS
from trainer.training.model_state import state_variables

# Limits for kept weights and optimizer variables, and for networks: a graph takes about 12 MB.
_MAX_BYTES, _MAX_MODELS = 256 * 2**20, 8
# The settings of [train] that are not part of the graph of a training step.
_OUTSIDE_GRAPH = RUNTIME_KEYS | {
    "epochs",
    "steps_per_epoch",
    "validation_steps",
    "oversample_foreground",
    "start_from",
    "freeze_encoder_epochs",
    "encoder_lr_factor",
    "learning_rate",
    "lr_schedule",
    "warmup_epochs",
    "plateau_factor",
    "plateau_patience",
    "plateau_min_lr",
    "patience",
    "monitor",
    "precision",
    "keep_checkpoints",
}


@dataclass(frozen=True)
class CompiledModel:
    """A compiled network, and the initial values of all its variables."""

    key: str
    policy: str
    model: keras.Model
    initial_values: list[NDArray]

    @property
    def size(self) -> int:
        """Bytes of its variables and of their initial values."""
        return 2 * sum(value.nbytes for value in self.initial_values)


@final
class ModelCache:
    """The networks of earlier trainings, the most recently used one last."""

    def __init__(self) -> None:
        self._models: list[CompiledModel] = []

    def acquire(
        self, config: Config, policy: str, build: Callable[[Config], keras.Model]
    ) -> CompiledModel:
        """A network for these settings with its initial weights, cached or newly built.

        policy: the Keras mixed precision policy that it computes with.
        """
        key = _cache_key(config, policy)
        for compiled in self._models:
            if compiled.key == key:
                self._models.remove(compiled)
                variables = state_variables(compiled.model)
                for variable, value in zip(variables, compiled.initial_values, strict=True):
                    variable.assign(value)
                return compiled
        model = build(config)
        initial_values = [variable.numpy() for variable in state_variables(model)]
        return CompiledModel(key, policy, model, initial_values)

    def release(self, compiled: CompiledModel) -> None:
        """Keep a network whose training ended without an error; the oldest are evicted."""
        if compiled.policy == "mixed_float16":
            # The loss scale is not a variable that could be reset.
            return
        self._models.append(compiled)
        while len(self._models) > _MAX_MODELS or self._total_bytes() > _MAX_BYTES:
            self._models.pop(0)

    def _total_bytes(self) -> int:
        return sum(compiled.size for compiled in self._models)


def _cache_key(config: Config, policy: str) -> str:
    train = config.train.model_dump_json(exclude=_OUTSIDE_GRAPH)
    classes = repr(config.data.segmentation_classes)
    network = config.network.model_dump_json()
    # The factor itself is a variable of the graph.
    has_rate = config.train.has_encoder_rate
    parts = [config.run.seed, policy, network, config.input_channels, classes, train, has_rate]
    return "\n".join(map(str, parts))
