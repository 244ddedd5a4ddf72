"""UNet 3+: full-scale skip connections, deep supervision and the classification-guided module."""

import numpy as np
import pytest
import tf_keras as keras

from contract.config.network import UNet3Plus
from trainer.networks.registry import build_network
from trainer.networks.unet3_plus import PresenceGate

SMALL = {"image_size": 32, "num_layers": 3, "base_filters": 4}


def conv_shapes(model: keras.Model, prefix: str) -> list[tuple[int, ...]]:
    """The shapes of the kernels of the convolutions whose names begin with a prefix."""
    return [
        tuple(layer.kernel.shape)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith(prefix)
    ]


@pytest.mark.parametrize("num_layers", [2, 5, 7])
def test_every_level_of_the_decoder_takes_all_scales(num_layers: int) -> None:
    settings = {"image_size": 64, "num_layers": num_layers, "base_filters": 2, "skip_filters": 3}
    model = build_network(UNet3Plus.model_validate(settings), 1, 1).inference_model
    fused = 3 * num_layers
    for level in range(num_layers - 1):
        side = 64 // 2**level
        finer = [2 * 2**source for source in range(level + 1)]
        coarser = [fused] * (num_layers - level - 2) + [2 * 2 ** (num_layers - 1)]
        stage = f"decoder_{level}"
        shapes = sorted(conv_shapes(model, f"{stage}_from_"))
        assert shapes == sorted((3, 3, channels, 3) for channels in finer + coarser)
        assert conv_shapes(model, f"{stage}_fuse") == [(3, 3, fused, fused)]
        assert model.get_layer(f"{stage}_concatenate").output_shape == (None, side, side, fused)


def test_a_scale_has_as_many_filters_as_the_first_level() -> None:
    model = build_network(UNet3Plus.model_validate(SMALL), 1, 1).inference_model
    assert conv_shapes(model, "decoder_0_fuse") == [(3, 3, 12, 12)]


def test_kernels_and_dilation_of_the_decoder_are_those_of_its_levels() -> None:
    settings = {**SMALL, "base_kernels": 7, "dilation": 2}
    model = build_network(UNet3Plus.model_validate(settings), 1, 1).inference_model
    for level, (kernel, dilation) in enumerate([(7, 2), (5, 1)]):
        for name in (f"decoder_{level}_from_0_conv", f"decoder_{level}_fuse_conv"):
            layer = model.get_layer(name)
            assert layer.kernel_size == (kernel, kernel)
            assert layer.dilation_rate == (dilation, dilation)


def test_deep_supervision_trains_every_stage_with_equal_weights() -> None:
    settings = {**SMALL, "deep_supervision": True, "classification_guided": True}
    layout = build_network(UNet3Plus.model_validate(settings), 2, 1).layout
    assert layout.weights == (1 / 3, 1 / 3, 1 / 3)
    assert layout.has_presence
    alone = build_network(UNet3Plus.model_validate(SMALL), 2, 1).layout
    assert alone.weights == (1.0,)
    assert not alone.has_presence


def test_a_class_that_the_classifier_does_not_find_is_removed_outside_of_training() -> None:
    maps = np.full((2, 4, 4, 2), 0.4, np.float32)
    presence = np.array([[0.9, 0.2], [0.5, 0.6]], np.float32)
    gate = PresenceGate()
    assert np.array_equal(gate([maps, presence], training=True), maps)
    gated = gate([maps, presence], training=False).numpy()
    assert gated[:, 0, 0].tolist() == pytest.approx(np.array([[0.4, 0.0], [0.0, 0.4]]))
    assert np.array_equal(gated, np.broadcast_to(gated[:, :1, :1], gated.shape))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_the_gate_acts_on_every_output_of_the_network(deep_supervision: bool) -> None:
    settings = {**SMALL, "classification_guided": True, "deep_supervision": deep_supervision}
    built = build_network(UNet3Plus.model_validate(settings), 1, 1)
    slices = np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    classifier = built.training_model.get_layer("presence_conv")
    kernel, _ = classifier.get_weights()
    for bias, is_found in ((-50.0, False), (50.0, True)):
        classifier.set_weights([kernel, np.array([bias])])
        maps = built.training_model(slices, training=False)
        for probability in built.layout.split_probabilities(maps):
            assert (probability.numpy() > 0).all() == is_found
            assert (probability.numpy() > 0).any() == is_found
        assert (built.layout.presence(maps).numpy() > 0.5).all() == is_found
