"""The state of a training: the variables that it resumes from, and their values.

With train.ema_decay, the weights of a state are their averages, and the averages of the optimizer
are the weights. What reads the weights of a state, to predict or to export, gets the averages.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from trainer.components.optimizers import inner_optimizer
from trainer.export.weights import ModelState


def state_variables(model: keras.Model) -> list[Any]:
    """The variables that training resumes from, weights first; a loss scale recovers by itself."""
    return [*model.weights, *model.optimizer.variables]


class StateReader:
    """Reads the values of the state variables of a compiled model.

    Each worker has moving statistics of its own, and the value of such a variable is their mean.
    Read one by one they cost a collective each, after every epoch a tenth of the time of a small
    network on two workers (docs/lab-notes.md); here all of them cost one.
    """

    def __init__(self, model: keras.Model) -> None:
        self._variables = state_variables(model)
        self._strategy = model.distribute_strategy
        self._local = [
            variable
            for variable in self._variables
            if self._strategy.num_replicas_in_sync > 1
            and variable.synchronization == tf.VariableSynchronization.ON_READ
        ]
        self._read_means = tf.function(self._compute_means, autograph=False)

    def read(self) -> ModelState:
        """The values of state_variables(model), in their order. Every worker must call it."""
        means = iter(self._read_means() if self._local else ())
        local = {id(variable) for variable in self._local}
        return [
            (next(means) if id(variable) in local else variable).numpy()
            for variable in self._variables
        ]

    def _compute_means(self) -> list[tf.Tensor]:
        def mean_over_workers() -> list[tf.Tensor]:
            values = [tf.identity(variable) for variable in self._local]
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)

        return self._strategy.run(mean_over_workers)


class WeightAverages:
    """The moving averages of the weights of a compiled model, if its optimizer has any."""

    def __init__(self, model: keras.Model) -> None:
        averages = inner_optimizer(model).averages
        weights = model.trainable_variables if averages else ()
        self._pairs = list(zip(weights, averages, strict=True))
        self._exchange = tf.function(self._assign, autograph=False)

    def reset(self) -> None:
        """Set the averages to the weights. Every worker must call it."""
        for weight, average in self._pairs:
            average.assign(tf.identity(weight))

    def exchange(self) -> None:
        """Exchange the weights and their averages. Every worker must call it."""
        if self._pairs:
            self._exchange()

    def _assign(self) -> None:
        values = [(tf.identity(weight), tf.identity(average)) for weight, average in self._pairs]
        for (weight, average), (first, second) in zip(self._pairs, values, strict=True):
            weight.assign(second)
            average.assign(first)
