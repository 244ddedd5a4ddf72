"""TransUNet: its stages and the standardized weights of its ResNet."""

import numpy as np
import pytest
import tf_keras as keras
from pydantic import ValidationError

from contract.config.network import TransUNet
from trainer.networks import trans_unet


def test_the_stages_have_the_filters_of_the_paper() -> None:
    network = TransUNet(encoder_depths=(1, 1, 1), num_transformer_layers=1)
    *skips, deepest = trans_unet.resnet(network, keras.Input((32, 48, 1)))
    assert [skip.shape[1:] for skip in skips] == [(16, 24, 64), (8, 12, 256), (4, 6, 512)]
    assert deepest.shape[1:] == (2, 3, 1024)
    tokens = trans_unet.transformer(network, deepest)
    assert tokens.shape[1:] == (2, 3, 768)
    assert trans_unet.decoder(network, tokens, skips).shape[1:] == (32, 48, 16)


def test_scale_and_mean_of_a_filter_do_not_matter() -> None:
    layer = trans_unet.StandardizedConv2D(5, 3, use_bias=False)
    slices = np.random.default_rng(0).normal(size=(1, 6, 6, 2)).astype(np.float32)
    maps = layer(slices).numpy()
    (kernel,) = layer.get_weights()
    layer.set_weights([kernel * [1, 2, 3, 4, 5] + [0, 1, 2, 3, 4]])
    assert layer(slices).numpy() == pytest.approx(maps, abs=1e-2)
    assert maps.std() == pytest.approx(np.sqrt(kernel[..., 0].size), rel=0.3)


def test_heads_divide_the_features() -> None:
    with pytest.raises(ValidationError, match=r"hidden_size = 100 must be divisible by .* = 12"):
        TransUNet(hidden_size=100)
