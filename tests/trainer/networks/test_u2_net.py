"""U2-Net: its blocks, its two variants, and the fusion of its side outputs."""

import numpy as np
import pytest
import tf_keras as keras

from contract.config.network import U2Net
from trainer.networks.registry import build_network

TINY = {"image_size": 32, "base_filters": 4, "variant": "small", "normalization": "none"}


@pytest.fixture(scope="module")
def full() -> keras.Model:
    return build_network(
        U2Net(base_filters=8, image_size=64, normalization="none"), 1, 1
    ).inference_model


def test_the_small_variant_has_the_published_number_of_parameters() -> None:
    """1,131,181 for RGB with the biases before batch normalization, of which there are 2,848."""
    model = build_network(U2Net(variant="small", normalization="batch"), 1, 3).inference_model
    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert count == 1_131_181 - 2_848


def test_the_filters_of_the_full_variant_are_proportional_to_base_filters(
    full: keras.Model,
) -> None:
    encoder = [full.get_layer(f"encoder_{level}_add").output_shape[1:] for level in range(6)]
    assert encoder == [
        (64, 64, 8),
        (32, 32, 16),
        (16, 16, 32),
        (8, 8, 64),
        (4, 4, 64),
        (2, 2, 64),
    ]
    decoder = [full.get_layer(f"decoder_{level}_add").output_shape[-1] for level in range(5)]
    assert decoder == [8, 8, 16, 32, 64]
    inner = [full.get_layer(f"encoder_{level}_down_2_conv").filters for level in range(6)]
    assert inner == [4, 4, 8, 16, 32, 32]
    inner = [full.get_layer(f"decoder_{level}_down_2_conv").filters for level in range(5)]
    assert inner == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("stage", "sides", "dilations"),
    [
        ("encoder_0", [64, 32, 16, 8, 4, 2, 2], [1, 1, 1, 1, 1, 1, 2]),
        ("encoder_3", [8, 4, 2, 2], [1, 1, 1, 2]),
        ("decoder_4", [4, 4, 4, 4], [1, 2, 4, 8]),
        ("encoder_5", [2, 2, 2, 2], [1, 2, 4, 8]),
    ],
)
def test_a_block_is_a_unet_or_has_dilations(
    full: keras.Model, stage: str, sides: list[int], dilations: list[int]
) -> None:
    """Downwards, and upwards the same without the bottom."""
    height = len(sides)
    down = [full.get_layer(f"{stage}_down_{depth}_conv") for depth in range(1, height + 1)]
    up = [full.get_layer(f"{stage}_up_{depth}_conv") for depth in range(1, height)]
    assert [layer.output_shape[1] for layer in down] == sides
    assert [layer.dilation_rate[0] for layer in down] == dilations
    assert [layer.output_shape[1] for layer in up] == sides[:-1]
    assert [layer.dilation_rate[0] for layer in up] == dilations[:-1]


def test_the_fusion_starts_as_the_mean_of_the_side_outputs() -> None:
    built = build_network(U2Net.model_validate(TINY), 2, 1)
    assert built.layout.weights == pytest.approx((1 / 7,) * 7)
    model = built.training_model
    logits = keras.Model(
        model.input,
        [model.get_layer("fusion").output, model.get_layer("fusion_concatenate").output],
    )
    slices = np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    fused, side = (each.numpy() for each in logits(slices))
    mean = side.reshape(1, 32, 32, 6, 3).mean(axis=3)
    assert np.abs(fused - mean).max() < 1e-4 * np.abs(mean).max()


def test_without_deep_supervision_only_the_fused_output_is_trained() -> None:
    built = build_network(U2Net.model_validate({**TINY, "deep_supervision": False}), 1, 1)
    assert built.layout.weights == (1.0,)
    assert built.training_model.output_shape == (None, 32, 32, 1)
