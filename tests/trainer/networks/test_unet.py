"""The flexible UNet: shapes, the rules of its levels, precision."""

import numpy as np
import pytest
import tf_keras as keras

from contract.config import UNet
from trainer.networks import unet
from trainer.networks.layers import level_dropout
from trainer.networks.registry import build_network

SMALL = {"image_size": 32, "num_layers": 3, "base_filters": 4}


@pytest.mark.parametrize("normalization", ["none", "batch", "sync_batch", "group"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_it_maps_slices_to_probabilities(normalization: str, channels: int) -> None:
    settings = {**SMALL, "normalization": normalization}
    model = build_network(UNet.model_validate(settings), 1, channels).inference_model
    slices = np.random.default_rng(0).random((2, 32, 32, channels), np.float32)
    out = model(slices).numpy()
    assert out.shape == (2, 32, 32, 1)
    assert 0 < out.min() < out.max() < 1


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "mish", "silu"])
def test_every_activation_is_used(activation: str) -> None:
    model = build_network(
        UNet.model_validate({**SMALL, "activation": activation}), 1, 1
    ).inference_model
    names = {
        "leaky_relu" if isinstance(layer, keras.layers.LeakyReLU) else layer.activation.__name__
        for layer in model.layers
        if isinstance(layer, keras.layers.Activation | keras.layers.LeakyReLU)
    }
    assert names == {"swish" if activation == "silu" else activation}


def test_kernels_shrink_by_two_and_dilation_by_one() -> None:
    network = UNet(num_layers=5, base_kernels=9, dilation=3)
    assert [unet.level_kernel_size(network, level) for level in range(5)] == [9, 7, 5, 3, 3]
    assert [unet.level_dilation(network, level) for level in range(5)] == [3, 2, 1, 1, 1]
    assert [unet.level_kernel_size(UNet(base_kernels=1), level) for level in range(3)] == [
        1,
        1,
        1,
    ]


def test_filters_double_up_to_the_cap() -> None:
    network = UNet(base_filters=16, num_layers=5)
    assert [unet.level_filters(network, level) for level in range(5)] == [16, 32, 64, 128, 256]
    capped = UNet(base_filters=16, num_layers=5, max_filters=64)
    assert [unet.level_filters(capped, level) for level in range(5)] == [16, 32, 64, 64, 64]


def test_dropout_grows_with_the_level_to_one_half() -> None:
    assert [level_dropout(0.2, level) for level in range(5)] == [
        0.0,
        0.2,
        0.4,
        pytest.approx(0.5),
        0.5,
    ]


def test_probabilities_are_float32_in_mixed_precision() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build_network(UNet.model_validate(SMALL), 1, 1).inference_model
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.output.dtype == "float32"
    assert model.layers[1].compute_dtype == "bfloat16"
