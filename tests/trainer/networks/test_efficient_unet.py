"""The decoder of the EfficientNet UNet, and which layers of its encoder are trained."""

import pytest
import tf_keras as keras

from contract.config.network import EfficientUNet
from trainer.networks.filter_counts import count_filters
from trainer.networks.registry import build_network


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.mixed_precision.set_global_policy("float32")
    settings = {"image_size": [64, 96], "max_filters": 64, "trainable_encoder_layers": 3}
    return build_network(EfficientUNet.model_validate(settings), 1, 1).training_model


def test_each_level_of_the_decoder_has_the_skip_of_its_stride(model: keras.Model) -> None:
    for level, filters in enumerate((16, 32, 64, 64, 64)):
        shape = model.get_layer(f"decoder_{level}_2_activation").output_shape
        assert shape == (None, 64 >> level, 96 >> level, filters)
    skips = {96: 1, 144: 2, 240: 3, 672: 4}
    for channels, level in skips.items():
        upsampled = model.get_layer(f"decoder_{level}_upsample").output_shape[-1]
        joined = model.get_layer(f"decoder_{level}_concatenate").output_shape[-1]
        assert joined == upsampled + channels


def test_the_last_layers_of_the_encoder_and_the_decoder_are_trained(model: keras.Model) -> None:
    trained = {variable.name.split("/")[0] for variable in model.trainable_variables}
    encoder = {name for name in trained if not name.startswith(("decoder", "probability"))}
    assert encoder == {"top_conv", "top_bn"}
    assert "decoder_4_1_conv" in trained


def test_dropout_grows_with_the_level(model: keras.Model) -> None:
    rates = [model.get_layer(f"decoder_{level}_dropout").rate for level in range(5)]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    defaults = EfficientUNet()
    assert count_filters(defaults.base_filters, defaults.max_filters, 4) == 256
