"""The encoders compute what the models of keras.applications compute with the same weights."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from trainer.networks import encoders

RGB = np.random.default_rng(0).random((2, 64, 96, 3), np.float32)


def shuffled(model: keras.Model) -> dict[str, list[np.ndarray]]:
    """New weights for a model, also where initial ones are constant, by layer as in a file."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights(
                [np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]) ** 2, 0]
            )
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def network(encoder: keras.Model) -> keras.Model:
    inputs = keras.Input((64, 96, 3))
    return keras.Model(inputs, encoder(inputs))


def assert_close(features: tf.Tensor, expected: tf.Tensor) -> None:
    scale = np.abs(expected).max()
    assert np.abs(np.asarray(features) / scale - np.asarray(expected) / scale).max() < 1e-4


def test_efficientnet_has_the_features_of_its_application() -> None:
    keras.mixed_precision.set_global_policy("float32")
    application = keras.applications.EfficientNetB0(include_top=False, weights=None)
    weights = shuffled(application)
    encoder = encoders.create_efficientnet("b0", ["block2a_expand_activation", "top_activation"])
    encoders.load_encoder_weights(network(encoder), weights)
    first, last = encoder(encoders.scale_to_imagenet(tf.constant(RGB)))
    assert first.shape == (2, 32, 48, 96)
    assert_close(last, application(RGB * 255.0))

    def frozen(count: int) -> set[str]:
        encoders.freeze_all_but_last(encoder, count)
        trainable = {layer.name.split("_")[0] for layer in encoder.layers if layer.trainable}
        assert len(encoder.trainable_weights) < len(encoder.weights)
        return trainable

    # The layers of the published case (61 of B7: its stage 7 and what follows) in B0.
    names = [layer.name for layer in application.layers]
    assert frozen(len(names) - names.index("block7a_expand_conv")) == {"block7a", "top"}
    stage = frozen(len(names) - names.index("block6d_expand_conv"))
    assert stage == {"block6d", "block7a", "top"}
    assert frozen(0) == set()
    before = encoder.get_layer("stem_bn").moving_mean.numpy()
    encoder(RGB, training=True)
    assert np.array_equal(encoder.get_layer("stem_bn").moving_mean.numpy(), before)


def test_the_atrous_resnet_has_the_features_of_its_application() -> None:
    """And those between them: every second of its features is one of the strided network."""
    keras.mixed_precision.set_global_policy("float32")
    application = keras.applications.ResNet50(include_top=False, weights=None)
    encoder = encoders.create_atrous_resnet50(["conv2_block3_out", "conv5_block3_out"])
    encoders.load_encoder_weights(network(encoder), shuffled(application))
    low_level, last = encoder(encoders.scale_to_caffe(tf.constant(RGB)))
    assert low_level.shape == (2, 16, 24, 256)
    assert last.shape == (2, 4, 6, 2048)
    scaled = keras.applications.resnet50.preprocess_input(RGB * 255.0)
    assert_close(last[:, ::2, ::2], application(scaled))


def tiny(filters: int = 4) -> keras.Model:
    encoder = keras.Sequential(
        [
            keras.Input((64, 96, 3)),
            keras.layers.Conv2D(filters, 1, name="stem_conv"),
            keras.layers.BatchNormalization(name="stem_bn"),
        ],
        name=encoders.ENCODER,
    )
    return network(encoder)


def test_weights_of_another_model_change_nothing() -> None:
    model = tiny()
    before = model.get_weights()
    weights = shuffled(tiny(5).get_layer(encoders.ENCODER))
    with pytest.raises(ValueError, match=r"has the shapes .*5.* in its layer stem_conv, while .*4"):
        encoders.load_encoder_weights(model, weights)
    del weights["stem_bn"]
    with pytest.raises(ValueError, match="has weights for 1 layers, while the encoder has 2"):
        encoders.load_encoder_weights(model, weights)
    for now, then in zip(model.get_weights(), before, strict=True):
        assert np.array_equal(now, then)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels_becomes_three(channels: int) -> None:
    slices = np.random.default_rng(0).random((2, 4, 4, channels), np.float32)
    rgb = np.asarray(encoders.to_rgb(tf.constant(slices)))
    if channels == 3:
        assert np.array_equal(rgb, slices)
    else:
        mean = slices.mean(axis=-1, keepdims=True)
        assert np.allclose(rgb, np.repeat(mean, 3, axis=-1), atol=1e-6)


def test_efficientnet_computes_in_the_precision_of_the_network() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        encoder = encoders.create_efficientnet("b0", ["top_activation"])
        assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        keras.mixed_precision.set_global_policy("float32")
    layer = encoder.get_layer("block3a_project_conv")
    assert (layer.compute_dtype, layer.kernel.dtype) == ("bfloat16", "float32")
    assert encoder.get_layer("stem_bn").momentum == 0.9
