"""Networks that are built and traced, kept for the next training of the same process.

Building a network and tracing its training step takes seconds, which for the trials of a sweep
may be more than their epochs. Two trainings whose graphs are the same (learning rate and schedule
are no part of a graph) share one; it begins with the same first weights each time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import tf_keras as keras
from numpy.typing import NDArray

from contract.config import Config

# Of weights and optimisers that are kept for later, and of networks: a graph takes some 12 MB.
_MOST_BYTES, _MOST = 256 * 2**20, 8
# Of [train], what the graph of a training step is made of.
_TRAIN = {"loss", "optimizer", "weight_decay", "clip_value", "clip_norm", "batch_size"}


@dataclass(frozen=True)
class CompiledModel:
    """A compiled network, and the first values of all its variables."""

    key: str
    policy: str
    model: keras.Model
    initial_values: list[NDArray]

    @property
    def size(self) -> int:
        """Bytes of its variables and of their first values."""
        return 2 * sum(value.nbytes for value in self.initial_values)


@final
class ModelCache:
    """The networks of earlier trainings, the one that was used last at the end."""

    def __init__(self) -> None:
        self._models: list[CompiledModel] = []

    def acquire(
        self, config: Config, policy: str, build: Callable[[Config], keras.Model]
    ) -> CompiledModel:
        """A network for these settings with its first weights: a kept one, or one that is built.

        policy: the number format it computes in.
        """
        key = _key(config, policy)
        for built in self._models:
            if built.key == key:
                self._models.remove(built)
                for variable, value in zip(
                    state_variables(built.model), built.initial_values, strict=True
                ):
                    variable.assign(value)
                return built
        model = build(config)
        return CompiledModel(
            key, policy, model, [variable.numpy() for variable in state_variables(model)]
        )

    def release(self, built: CompiledModel) -> None:
        """Keep a network whose training has come to an orderly end; the oldest make room."""
        if built.policy == "mixed_float16":
            # The scale of its losses is no variable that could be set back.
            return
        self._models.append(built)
        while len(self._models) > _MOST or sum(one.size for one in self._models) > _MOST_BYTES:
            self._models.pop(0)


def state_variables(model: keras.Model) -> list[Any]:
    """What a training goes on from, weights first; a scale of losses finds its value again."""
    return [*model.weights, *model.optimizer.variables]


def _key(config: Config, policy: str) -> str:
    train = config.train.model_dump_json(include=_TRAIN)
    return "\n".join([str(config.run.seed), policy, config.network.model_dump_json(), train])
