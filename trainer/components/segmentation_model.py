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

    def compile(self, *args: object, accumulate: int = 1, **kwargs: object) -> None:
        """As keras.Model.compile; the logs of a batch are those of this worker.

        accumulate: The parts into which a worker divides its samples of a batch, to need the memory
        of one part; their gradients are averaged. Loss and batch normalization are those of a part.
        """
        super().compile(*args, **kwargs)
        self.distribute_reduction_method = "first"
        self.accumulate = accumulate
        self.part = 0
        """The part of the batch that is being traced."""

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """As keras.Model.train_step, with the gradient of all parts of the batch."""
        if self.accumulate == 1:
            return super().train_step(data)
        variables = self.trainable_variables
        total, metrics = [tf.zeros_like(variable) for variable in variables], {}
        for part, (x, y, sample_weight) in enumerate(split_batch(data, self.accumulate)):
            self.part = part
            # Without this order TensorFlow may compute all parts at the same time, with the memory
            # of the whole batch.
            with tf.control_dependencies(total):
                x = tf.identity(x)
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x, y, y_pred, sample_weight)
            gradients = self.optimizer.compute_gradients(loss, variables, tape)
            total = [
                added + gradient / self.accumulate
                for added, (gradient, _) in zip(total, gradients, strict=True)
            ]
            metrics = self.compute_metrics(x, y, y_pred, sample_weight)
        self.optimizer.apply_gradients(zip(total, variables, strict=True))
        return metrics

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


def split_batch(data: Any, parts: int) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]]:
    """The parts of a batch of Keras: images, masks and the weights of the samples, if any."""
    columns = [
        [None] * parts if each is None else tf.split(each, parts)
        for each in keras.utils.unpack_x_y_sample_weight(data)
    ]
    return list(zip(*columns, strict=True))
