"""What is special to the MultiResUNet: the filters of its blocks and the lengths of its paths."""

import pytest
import tf_keras as keras

from contract.config.network import MultiResUNet
from trainer.networks.multires_unet import block_filters
from trainer.networks.registry import build_network


@pytest.mark.parametrize(
    ("level", "filters"),
    [
        (0, (8, 17, 26)),
        (1, (17, 35, 53)),
        (2, (35, 71, 106)),
        (3, (71, 142, 213)),
        (4, (142, 284, 427)),
    ],
)
def test_the_filters_of_a_block_are_those_of_the_published_network(
    level: int, filters: tuple[int, ...]
) -> None:
    assert block_filters(MultiResUNet(), level) == filters


def test_every_convolution_of_a_narrow_network_has_a_filter() -> None:
    assert block_filters(MultiResUNet(base_filters=1, alpha=0.1), 0) == (1, 1, 1)


def test_the_paths_are_shorter_at_coarser_levels() -> None:
    network = MultiResUNet(image_size=32, base_filters=2)
    model = build_network(network, 1, 1).training_model
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Add)]
    units = [sum(name.startswith(f"decoder_{level}_path_") for name in names) for level in range(4)]
    assert units == [4, 3, 2, 1]
    assert model.get_layer("decoder_0_path_4_sum_norm").output.shape == (None, 32, 32, 2)
    assert model.get_layer("decoder_3_path_1_sum_norm").output.shape == (None, 4, 4, 16)


def test_the_published_number_of_parameters_results_without_the_deviations() -> None:
    """For RGB: no scale in the normalization after a convolution; a normalized output."""
    network = MultiResUNet(image_size=32, image_channels=3)
    model = build_network(network, 1, 3).inference_model
    names = {layer.name for layer in model.layers}
    scales = [
        int(layer.gamma.shape[0])
        for layer in model.layers
        if layer.name.endswith("_norm") and layer.name.replace("_norm", "_conv") in names
    ]
    output_bias, output_normalization = 1, 3
    count = model.count_params() - sum(scales) - output_bias + output_normalization
    assert count == 7_262_750
