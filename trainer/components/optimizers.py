"""The optimizers of train.optimizer."""

import tensorflow as tf
import tf_keras as keras

from contract.config import Train


class FusedAdamMixin(keras.optimizers.Optimizer):
    """The update of Adam as the single operation that TensorFlow has for it.

    The update of tf_keras consists of about twenty operations per variable: for a small network
    that is most of the tracing, two seconds of each start on a CPU (docs/lab-notes.md). The result
    is the same (Kingma & Ba 2015, arXiv:1412.6980, end of section 2). The public
    keras.optimizers.legacy.Adam uses this operation too, but there is no legacy AdamW, and it
    creates its variables only in its first step, after a checkpoint is restored.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update a variable with its gradient."""
        dtype = variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        index = self._index_dict[self._var_key(variable)]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(self.learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=gradient,
        )


class Adam(FusedAdamMixin, keras.optimizers.Adam):
    """Keras's Adam with one operation per variable."""


class AdamW(FusedAdamMixin, keras.optimizers.AdamW):
    """Keras's AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), one operation per variable."""


def build_optimizer(train: Train) -> keras.optimizers.Optimizer:
    """The optimizer of the settings.

    Its learning rate is 0 until TrainingCallback sets it before each step.
    """
    clip = {"clipvalue": train.clip_value, "global_clipnorm": train.clip_norm}
    match train.optimizer:
        case "adam":
            return Adam(0.0, **clip)
        case "adamw":
            return AdamW(0.0, weight_decay=train.weight_decay, **clip)
        case "sgd":
            return keras.optimizers.SGD(0.0, momentum=0.99, nesterov=True, **clip)
