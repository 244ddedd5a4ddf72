"""The weights of a network by the names of its layers, and from one network to another.

The layers of all networks have names of their own, such as encoder_0_1_conv, that do not depend on
the settings: a layer of one network fits a layer of another if names and shapes are equal.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tf_keras as keras
from numpy.typing import NDArray

LayerWeights = Mapping[str, Sequence[NDArray[np.generic]]]
"""The weights of each layer that has any; a layer of the encoder reads "encoder/stem_conv"."""


def weighted_layers(model: keras.Model, prefix: str = "") -> dict[str, keras.layers.Layer]:
    """The layers of a model and of the models inside it that have weights, by name."""
    layers: dict[str, keras.layers.Layer] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layers |= weighted_layers(layer, f"{prefix}{layer.name}/")
        elif layer.weights:
            layers[prefix + layer.name] = layer
    return layers


def name_weights(model: keras.Model, values: Sequence[NDArray[np.generic]]) -> LayerWeights:
    """The values of model.weights by layer."""
    value_of = {id(variable): value for variable, value in zip(model.weights, values, strict=True)}
    return {
        name: [value_of[id(variable)] for variable in layer.weights]
        for name, layer in weighted_layers(model).items()
    }


def load_fitting_weights(model: keras.Model, stored: LayerWeights) -> tuple[list[str], list[str]]:
    """Set the weights of the layers that fit; the names of these, and of the other layers."""
    loaded: list[str] = []
    others: list[str] = []
    for name, layer in weighted_layers(model).items():
        values = stored.get(name, ())
        shapes = [tuple(variable.shape) for variable in layer.weights]
        if [value.shape for value in values] == shapes:
            layer.set_weights(values)
            loaded.append(name)
        else:
            others.append(name)
    return loaded, others
