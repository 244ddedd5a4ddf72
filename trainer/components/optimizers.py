"""The optimisers of the settings."""

import tensorflow as tf
import tf_keras as keras

from contract.config import Train


class FusedAdamMixin(keras.optimizers.Optimizer):
    """Adam's update as the one operation TensorFlow has for it.

    Keras's own is some twenty operations for every variable: on a small network most of what there
    is to trace and to make ready, two seconds of each start on a CPU (docs/lab-notes.md). The
    result is the same (Kingma & Ba 2015, arXiv:1412.6980, end of section 2).
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Change a variable by its gradient."""
        kind = variable.dtype
        step = tf.cast(self.iterations + 1, kind)
        beta_1, beta_2 = tf.cast(self.beta_1, kind), tf.cast(self.beta_2, kind)
        place = self._index_dict[self._var_key(variable)]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(self.learning_rate, kind),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, kind),
            grad=gradient,
        )


class Adam(FusedAdamMixin, keras.optimizers.Adam):
    """Keras's Adam with one operation a variable."""


class AdamW(FusedAdamMixin, keras.optimizers.AdamW):
    """Keras's AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with one operation a variable."""


def build_optimizer(train: Train) -> keras.optimizers.Optimizer:
    """The optimiser of the settings; its learning rate is set step by step."""
    clip = {"clipvalue": train.clip_value, "global_clipnorm": train.clip_norm}
    match train.optimizer:
        case "adam":
            return Adam(train.learning_rate, **clip)
        case "adamw":
            return AdamW(train.learning_rate, weight_decay=train.weight_decay, **clip)
        case "sgd":
            return keras.optimizers.SGD(train.learning_rate, momentum=0.99, nesterov=True, **clip)
