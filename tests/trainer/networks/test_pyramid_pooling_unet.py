"""What is special to the pyramid-pooling residual UNet: its pooling and its blocks."""

import numpy as np
import pytest
import tensorflow as tf

from contract.config.network import PyramidPoolingUNet
from contract.config.network.pyramid_pooling_unet import Pooling
from trainer.networks.pyramid_pooling_unet import GridPooling, cell_ranges
from trainer.networks.registry import build_network


def test_the_cells_of_a_side_cover_it_evenly() -> None:
    assert cell_ranges(6, 3) == [(0, 2), (2, 4), (4, 6)]
    assert cell_ranges(5, 2) == [(0, 3), (2, 5)]
    assert cell_ranges(2, 3) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_a_cell_is_the_average_or_the_maximum_of_its_features(pooling: Pooling) -> None:
    features = np.random.default_rng(0).random((2, 5, 4, 3), np.float32)
    cells = GridPooling(2, pooling)(tf.constant(features)).numpy()
    reduce = np.mean if pooling == "average" else np.max
    assert cells.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(cells[:, 0, 0], reduce(features[:, :3, :2], (1, 2)), rtol=1e-6)
    np.testing.assert_allclose(cells[:, 1, 1], reduce(features[:, 2:, 2:], (1, 2)), rtol=1e-6)


def test_the_context_of_the_whole_slice_reaches_every_pixel() -> None:
    """With pyramid pooling, a corner depends on the opposite corner, beyond the convolutions."""
    network = PyramidPoolingUNet(
        image_size=(64, 96),
        num_layers=2,
        base_filters=4,
        # A group normalization has statistics of the whole slice, and a ReLU may be 0 everywhere.
        normalization="batch",
        activation="elu",
    )
    model = build_network(network, 1, 1).inference_model
    slices = np.random.default_rng(0).random((1, 64, 96, 1), np.float32)
    changed = slices.copy()
    changed[0, -1, -1] += 10.0
    difference = model(changed).numpy() - model(slices).numpy()
    assert difference[0, 0, 0, 0] != 0.0


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_number_of_pooling_blocks_is_a_setting(blocks: int) -> None:
    network = PyramidPoolingUNet(
        image_size=32, num_layers=3, base_filters=6, num_pooling_blocks=blocks
    )
    model = build_network(network, 1, 1).training_model
    pooled = [layer for layer in model.layers if isinstance(layer, GridPooling)]
    assert [layer.grid for layer in pooled] == [1, 2, 3][:blocks]
    assert model.get_layer("pyramid_1_conv").output.shape == (None, 1, 1, 24 // blocks)
    assert model.get_layer("pyramid_concatenate").output.shape == (None, 8, 8, 48)


def test_a_block_projects_its_shortcut_only_where_the_filters_change() -> None:
    network = PyramidPoolingUNet(image_size=32, num_layers=4, base_filters=4, max_filters=8)
    names = {layer.name for layer in build_network(network, 1, 1).training_model.layers}
    assert {"encoder_1_shortcut_conv", "decoder_2_shortcut_conv"} <= names
    assert {"encoder_2_shortcut_conv", "encoder_3_shortcut_conv"}.isdisjoint(names)
