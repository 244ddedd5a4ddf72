"""Encoders: models of keras.applications without classification layer, as parts of a network.

An encoder is a Keras model named "encoder" inside the network, from RGB slices in the scaling of
its pre-trained weights to features of several strides. Its layers have the names and the order of
keras.applications, so that weight files of keras.applications fit (`load_encoder_weights`).

Deviations from keras.applications: the moving statistics of the batch normalization have the
momentum 0.9 instead of 0.99, because an epoch of a small dataset has only tens of steps; there is
no dropout (stochastic depth), whose random numbers would depend on the history of the process.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

ENCODER = "encoder"
"""The name of the encoder in a network."""

_MOMENTUM = 0.9
# Mean and standard deviation of ImageNet in RGB, with which the published weights were trained.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (123.68, 116.779, 103.939)


def to_rgb(slices: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] to [B, H, W, 3]: the three channels of an encoder.

    One channel is repeated. Other numbers than 1 and 3, as in 2.5D, pass a 1 x 1 convolution, which
    starts as the mean of the channels.
    """
    channels = slices.shape[-1]
    assert channels, "the channels of a slice are known when a network is built"
    if channels == 3:
        return slices
    if channels == 1:
        return keras.layers.Concatenate(dtype="float32", name="input_repeat")([slices] * 3)
    mean = keras.initializers.Constant(1.0 / channels)
    return keras.layers.Conv2D(
        3, 1, kernel_initializer=mean, dtype="float32", name="input_channels"
    )(slices)


def scale_to_imagenet(rgb: tf.Tensor) -> tf.Tensor:
    """Intensities in 0..1 to those with mean 0 and standard deviation 1 over ImageNet."""
    offset = [-mean / std for mean, std in zip(_MEAN, _STD, strict=True)]
    scale = [1.0 / std for std in _STD]
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="input_scaling")(rgb)


def scale_to_caffe(rgb: tf.Tensor) -> tf.Tensor:
    """Intensities in 0..1 to BGR in 0..255 minus the mean of ImageNet, as Caffe's networks have."""
    offset = [-mean for mean in _CAFFE_MEAN]
    centered = keras.layers.Rescaling(255.0, offset, dtype="float32", name="input_scaling")(rgb)
    return keras.layers.Lambda(
        lambda values: values[..., ::-1], dtype="float32", name="input_to_bgr"
    )(centered)


def create_efficientnet(variant: str, features: Sequence[str]) -> keras.Model:
    """EfficientNet from normalized RGB slices (`scale_to_imagenet`) to the named features.

    The layers Rescaling and Normalization, with which the model of keras.applications starts, are
    left out. Normalization computes with copies of its weights, which Keras does not update when a
    checkpoint is restored, and the published weight files have the standard deviation in place of
    the variance.
    """
    create = getattr(keras.applications, f"EfficientNet{variant.upper()}")
    policy = keras.mixed_precision.global_policy()
    # In bfloat16 Normalization would have variables that workers cannot send to each other.
    keras.mixed_precision.set_global_policy("float32")
    try:
        model = create(include_top=False, weights=None, drop_connect_rate=0.0)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    encoder = _create_encoder(model, model.get_layer("stem_conv_pad").input, features)
    return encoder if policy.name == "float32" else _clone_in_precision(encoder, policy.name)


def create_atrous_resnet50(features: Sequence[str]) -> keras.Model:
    """ResNet-50 with output stride 16, from BGR slices (`scale_to_caffe`) to the named features.

    Its last stage has stride 1 and the atrous rate 2; the weights are those of ResNet-50.
    """
    model = keras.applications.ResNet50(include_top=False, weights=None)
    # A network that contains this model calls its layers again, with these attributes.
    for name in ("conv5_block1_0_conv", "conv5_block1_1_conv"):
        model.get_layer(name).strides = (1, 1)
    for block in (1, 2, 3):
        model.get_layer(f"conv5_block{block}_2_conv").dilation_rate = (2, 2)
    return _create_encoder(model, model.input, features)


def _create_encoder(model: keras.Model, inputs: tf.Tensor, features: Sequence[str]) -> keras.Model:
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = _MOMENTUM
    outputs = [model.get_layer(name).output for name in features]
    return keras.Model(inputs, outputs, name=ENCODER)


def _clone_in_precision(encoder: keras.Model, policy: str) -> keras.Model:
    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": policy})

    return keras.models.clone_model(encoder, clone_function=clone)


def freeze_all_but_last(encoder: keras.Model, count: int) -> None:
    """Let only the last layers of an encoder train; batch normalization of others is inference.

    count: of layers, as in keras.applications, where a dropout layer precedes each addition.
    """
    for layer in reversed(encoder.layers):
        layer.trainable = count > 0
        count -= 2 if layer.name.endswith("_add") else 1


def load_encoder_weights(
    model: keras.Model, stored: Mapping[str, Sequence[NDArray[np.floating]]]
) -> None:
    """Set the weights of the encoder in a network.

    Args:
        model: The network.
        stored: The weights of each layer of the model of keras.applications, in their order there.

    Raises:
        ValueError: They are those of another model; the message is a clause that says how.
    """
    # As keras.applications does, the order is compared and not the names, which differ in old
    # files. The layer Normalization is not part of the encoder.
    sources = [item for item in stored.items() if not item[0].startswith("normalization")]
    targets = [layer for layer in model.get_layer(ENCODER).layers if layer.weights]
    if len(sources) != len(targets):
        raise ValueError(
            f"has weights for {len(sources)} layers, while the encoder has {len(targets)}"
        )
    for layer, (name, values) in zip(targets, sources, strict=True):
        expected = [tuple(variable.shape) for variable in layer.weights]
        if (shapes := [value.shape for value in values]) != expected:
            raise ValueError(
                f"has the shapes {shapes} in its layer {name}, while {layer.name} of the encoder "
                f"has {expected}"
            )
    for layer, (_, values) in zip(targets, sources, strict=True):
        layer.set_weights(values)
