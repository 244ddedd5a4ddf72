"""What a network computes from a slice: a probability map, and more outputs that only train it."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras


@dataclass(frozen=True)
class NetworkOutputs:
    """The outputs of a network.

    Attributes:
        probability: The probability of each class, float32 [B, H, W, K].
        side: For deep supervision, further probabilities of the same shape.
        side_weights: The weight of each of them in the loss, relative to that of `probability`.
        presence: The probability that a slice has any pixel of a class, float32 [B, K], of a
            network with classification-guided module.
    """

    probability: tf.Tensor
    side: Sequence[tf.Tensor] = ()
    side_weights: Sequence[float] = ()
    presence: tf.Tensor | None = None


@dataclass(frozen=True)
class OutputLayout:
    """Where each output is in the channels of the one tensor that a training model computes.

    Keras compiles a model with one output: it has the channels of the probability, of each side
    output, and of the presence, which is the same in every pixel.

    Attributes:
        num_classes: K.
        weights: The weights of the probability and of the side outputs in the loss; their sum is 1.
        has_presence: Whether the last K channels are the presence.
    """

    num_classes: int
    weights: tuple[float, ...] = (1.0,)
    has_presence: bool = False

    def split_probabilities(self, maps: tf.Tensor) -> list[tf.Tensor]:
        """The probability and the side outputs, each [B, H, W, K]."""
        count = self.num_classes
        return [maps[:, :, :, i * count : (i + 1) * count] for i in range(len(self.weights))]

    def presence(self, maps: tf.Tensor) -> tf.Tensor:
        """The presence, [B, K]."""
        return maps[:, 0, 0, -self.num_classes :]


def pack_outputs(outputs: NetworkOutputs, num_classes: int) -> tuple[tf.Tensor, OutputLayout]:
    """All outputs as one tensor, and where each is in it."""
    maps = [outputs.probability, *outputs.side]
    if outputs.presence is not None:
        maps.append(_SpreadPresence(dtype="float32")([outputs.presence, outputs.probability]))
    total = 1.0 + sum(outputs.side_weights)
    weights = tuple(weight / total for weight in (1.0, *outputs.side_weights))
    layout = OutputLayout(num_classes, weights, outputs.presence is not None)
    if len(maps) == 1:
        return outputs.probability, layout
    return keras.layers.Concatenate(dtype="float32", name="outputs")(maps), layout


class _SpreadPresence(keras.layers.Layer):
    """Repeats [B, K] over the pixels of maps: [B, H, W, K]."""

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        presence, maps = inputs
        return tf.ones_like(maps) * presence[:, None, None, :]
