"""The Keras model that is trained: a network whose training step waits for other workers twice.

Once for the loss and once for the gradients; synchronized batch normalization waits in addition.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras


class SegmentationModel(keras.Model):
    """A functional model whose workers do not exchange metrics in each step.

    Keras adds up every metric over the workers after each step, one collective a value: with two
    workers on two cores a third of the step of a small network (docs/lab-notes.md). Here they are
    added up once an epoch, when Keras reads them for on_epoch_end and at the end of a validation;
    in the logs of a batch the metrics are those of this worker's samples. The loss is that of the
    global batch on every worker (`SegmentationLoss`), so its running mean needs no collective.

    Its steps are traced without AutoGraph, which converts Python's control flow over tensors: there
    is none, and the conversion takes seconds of the first step.
    """

    def compile(self, *args: object, **kwargs: object) -> None:
        """As keras.Model.compile; the logs of a batch are those of this worker."""
        super().compile(*args, **kwargs)
        self.distribute_reduction_method = "first"

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """As keras.Model.train_step."""
        return super().train_step(data)

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """As keras.Model.test_step."""
        return super().test_step(data)

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """Update the metrics; their values over this worker's samples, by the names of Keras."""
        self.compiled_metrics.update_state(y, y_pred, sample_weight)
        values: dict[str, tf.Tensor] = {}
        for metric in self.metrics:
            # The method of the class: that of the object is wrapped in a collective by Keras.
            result = type(metric).result(metric)
            values |= result if isinstance(result, dict) else {metric.name: result}
        return values
