"""A learning rate of its own for the encoder, and a frozen encoder.

Both are one variable of the training step, which TrainingCallback sets before each step like the
learning rate: the step is traced once, and a resumed run computes the same values.
"""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from trainer.components.optimizers import EncoderRateMixin, inner_optimizer
from trainer.networks.registry import encoder_layers


class EncoderBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization that, while the encoder is frozen, is inference.

    As with layer.trainable = False in Keras, it normalizes with its moving statistics and does not
    update them.
    """

    is_trained: Callable[[], tf.Tensor]
    """Whether the encoder is trained in this step; set by add_encoder_rate."""

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """As keras.layers.BatchNormalization."""
        return super().call(inputs, training=self.is_trained() if training else False, mask=mask)


def add_encoder_rate(model: keras.Model, optimizer: EncoderRateMixin) -> None:
    """Give the encoder of a compiled model a factor of the learning rate.

    optimizer: that of the model, which is not built yet, without a wrapper for loss scaling.
    """
    layers = encoder_layers(model)
    factor = optimizer.add_encoder_factor(
        [variable for layer in layers for variable in layer.trainable_variables]
    )
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # The layer is part of a built network, and those of keras.applications are not ours.
            layer.__class__ = EncoderBatchNormalization
            layer.is_trained = lambda: tf.cast(factor, tf.bool)


def set_encoder_lr_factor(model: keras.Model, factor: float) -> None:
    """Set by what the learning rate of the encoder is multiplied in the following steps."""
    inner_optimizer(model).encoder_lr_factor.assign(factor)
