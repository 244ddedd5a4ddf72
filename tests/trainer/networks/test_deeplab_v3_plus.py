"""The pyramid pooling of DeepLabV3+."""

import tf_keras as keras

from contract.config.network import DeepLabV3Plus
from trainer.networks import deeplab_v3_plus


def test_the_pooling_of_the_image_does_not_depend_on_its_size() -> None:
    network = DeepLabV3Plus.model_validate({"atrous_rates": [2, 3], "decoder_filters": 8})
    counts = set()
    for size in ((4, 6), (3, 2)):
        features = keras.Input((*size, 32))
        model = keras.Model(features, deeplab_v3_plus.pyramid_pooling(network, features))
        assert model.output_shape == (None, *size, 8)
        counts.add(model.count_params())
    assert len(counts) == 1


def test_each_rate_has_a_branch() -> None:
    network = DeepLabV3Plus.model_validate({"atrous_rates": [2, 3], "decoder_filters": 8})
    features = keras.Input((4, 4, 32))
    model = keras.Model(features, deeplab_v3_plus.pyramid_pooling(network, features))
    rates = [model.get_layer(f"aspp_atrous_{n}_conv").dilation_rate for n in (1, 2)]
    assert rates == [(2, 2), (3, 3)]
    assert model.get_layer("aspp_concatenate").output_shape[-1] == 4 * 8
