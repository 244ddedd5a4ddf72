"""The optimizers of train.optimizer."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from contract.config import Train


class EncoderRateMixin(keras.optimizers.Optimizer):
    """A learning rate for the encoder that is a factor of that of the other layers.

    The updates are scaled, not the gradients: Adam divides by the size of the gradients. With the
    factor 0 neither the moments nor the weight decay move a weight. The moments follow the
    gradients all the same, so that the first updates after it are of the usual size.
    """

    encoder_lr_factor: tf.Variable | None = None
    """The factor, if the encoder has one."""
    _encoder_keys: frozenset[str] = frozenset()

    def add_encoder_factor(self, variables: Sequence[tf.Variable]) -> tf.Variable:
        """Give the variables of an encoder a factor; called before the optimizer is built."""
        factor = tf.Variable(tf.ones([]), trainable=False, name="encoder_lr_factor")
        self.encoder_lr_factor = factor
        self._encoder_keys = frozenset(self._var_key(variable) for variable in variables)
        # Keras decays weights with the learning rate of the other layers.
        self.exclude_from_weight_decay(list(variables))
        return factor

    def variable_rate(self, variable: tf.Variable) -> tf.Tensor:
        """The learning rate of a variable."""
        rate = tf.cast(self.learning_rate, variable.dtype)
        if self.encoder_lr_factor is None or self._var_key(variable) not in self._encoder_keys:
            return rate
        return rate * tf.cast(self.encoder_lr_factor, variable.dtype)


class FusedAdamMixin(EncoderRateMixin):
    """The update of Adam as the single operation that TensorFlow has for it.

    The update of tf_keras consists of about twenty operations per variable: for a small network
    that is most of the tracing, two seconds of each start on a CPU (docs/lab-notes.md). The result
    is the same (Kingma & Ba 2015, arXiv:1412.6980, end of section 2). The public
    keras.optimizers.legacy.Adam uses this operation too, but there is no legacy AdamW, and it
    creates its variables only in its first step, after a checkpoint is restored.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update a variable with its gradient."""
        dtype, rate = variable.dtype, self.variable_rate(variable)
        if self.weight_decay and self._var_key(variable) in self._encoder_keys:
            variable.assign_sub(variable * tf.cast(self.weight_decay, dtype) * rate)
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        index = self._index_dict[self._var_key(variable)]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=gradient,
        )


class WeightAverageMixin(keras.optimizers.Optimizer):
    """Maintains the exponential moving average of each weight (Polyak & Juditsky 1992).

    At step t, counted from 0, its decay is min(ema_decay, t / (9 + t)): the average follows the
    weights closely at first, and the initial weights hardly count. The average of Keras has no such
    start, so it consists mostly of the initial weights for the first 1 / (1 - decay) steps.
    """

    def __init__(self, *args: Any, ema_decay: float = 0.0, **kwargs: Any) -> None:
        """As the optimizer of Keras; ema_decay: 0 for no average."""
        super().__init__(*args, **kwargs)
        self.ema_decay = ema_decay
        self.averages: list[tf.Variable] = []
        """The average of each weight, in the order of the weights; empty without an average."""

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Create the variables of the optimizer, for the weights that it trains."""
        super().build(var_list)
        if self.ema_decay and not self.averages:
            self.averages = [
                self.add_variable_from_reference(variable, "average", initial_value=variable)
                for variable in var_list
            ]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update a variable with its gradient, and its average."""
        super().update_step(gradient, variable)
        if self.ema_decay:
            step = tf.cast(self.iterations, variable.dtype)
            decay = tf.minimum(self.ema_decay, step / (9.0 + step))
            average = self.averages[self._index_dict[self._var_key(variable)]]
            average.assign(decay * average + (1.0 - decay) * variable)


class Adam(WeightAverageMixin, FusedAdamMixin, keras.optimizers.Adam):
    """Keras's Adam with one operation per variable."""


class AdamW(WeightAverageMixin, FusedAdamMixin, keras.optimizers.AdamW):
    """Keras's AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), one operation per variable."""


class NesterovSGD(EncoderRateMixin, keras.optimizers.SGD):
    """Keras's SGD with Nesterov momentum (Sutskever 2013), which has the rate of each variable."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update a variable with its gradient."""
        step = -gradient * self.variable_rate(variable)
        momentum = tf.cast(self.momentum, variable.dtype)
        velocity = self.momentums[self._index_dict[self._var_key(variable)]]
        velocity.assign(step + velocity * momentum)
        variable.assign_add(step + velocity * momentum)


class SGD(WeightAverageMixin, NesterovSGD):
    """Keras's SGD with Nesterov momentum."""


def inner_optimizer(model: keras.Model) -> Any:
    """The optimizer of build_optimizer: in float16 it is inside one that scales the loss."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def build_optimizer(train: Train) -> EncoderRateMixin:
    """The optimizer of the settings.

    Its learning rate is 0 until TrainingCallback sets it before each step.
    """
    options = {
        "clipvalue": train.clip_value,
        "global_clipnorm": train.clip_norm,
        "ema_decay": train.ema_decay,
    }
    match train.optimizer:
        case "adam":
            return Adam(0.0, **options)
        case "adamw":
            return AdamW(0.0, weight_decay=train.weight_decay, **options)
        case "sgd":
            return SGD(0.0, momentum=0.99, nesterov=True, **options)
