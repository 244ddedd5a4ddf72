"""The size of a network, the table of its layers and its drawing."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest
import tensorflow as tf
import tf_keras as keras

from contract.config import UNet
from trainer.components.network_summary import (
    count_multiply_adds,
    draw_network,
    find_stages,
    format_count,
    layer_table,
    measure_network,
    stage_name,
)
from trainer.networks.registry import build_network

Layer = Callable[[tf.Tensor], tf.Tensor]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.Conv2D(5, 3, padding="same"), 8 * 6 * 5 * 3 * 3 * 4),
        (keras.layers.Conv2D(5, 3, strides=2, padding="same"), 4 * 3 * 5 * 3 * 3 * 4),
        (keras.layers.DepthwiseConv2D(3, padding="same"), 8 * 6 * 4 * 3 * 3),
        (keras.layers.Conv2DTranspose(5, 2, strides=2), 8 * 6 * 4 * 2 * 2 * 5),
        (keras.layers.Dense(7), 8 * 6 * 4 * 7),
        (keras.layers.EinsumDense("bhwc,cd->bhwd", (None, None, 7)), 8 * 6 * 4 * 7),
        (keras.layers.Lambda(lambda x: tf.matmul(x, x, transpose_a=True)), 8 * 4 * 4 * 6),
        (keras.layers.ReLU(), 0),
    ],
    ids=lambda value: value.name if isinstance(value, keras.layers.Layer) else "",
)
def test_multiply_adds_are_counted(layer: Layer, expected: int) -> None:
    slices = keras.Input((8, 6, 4))
    assert count_multiply_adds(keras.Model(slices, layer(slices))) == expected


@pytest.mark.parametrize(
    ("layer", "stage"),
    [
        ("encoder_0_1_conv", "encoder_0"),
        ("encoder_12", "encoder_12"),
        ("decoder_1_attention_psi", "decoder_1"),
        ("side_1_probability", "side_1"),
        ("res_path_2_1_conv", "res_path_2"),
        ("block2a_expand_conv", "block2a"),
        ("conv2_block1_1_conv", "conv2_block1"),
        ("probability", "probability"),
        ("select_probability", "select"),
    ],
)
def test_the_stage_of_a_layer_is_the_beginning_of_its_name(layer: str, stage: str) -> None:
    assert stage_name(layer) == stage


def test_a_unet_has_a_stage_per_level_of_encoder_and_decoder() -> None:
    network = UNet(image_size=64, num_layers=3, base_filters=4, normalization="batch")
    model = build_network(network, 1, 1).inference_model
    stages = {stage.name: stage for stage in find_stages(model)}
    assert list(stages) == [
        "slices",
        "encoder_0",
        "encoder_1",
        "encoder_2",
        "decoder_1",
        "decoder_0",
        "probability",
    ]
    assert [stage.level for stage in stages.values()] == [0, 0, 1, 2, 1, 0, 0]
    assert stages["decoder_1"].inputs == ["encoder_1", "encoder_2"]
    assert stages["encoder_1"].lines == ["32 x 32 x 8", "8 layers, 896"]
    size = measure_network(model)
    assert size.parameters == sum(int(tf.size(variable)) for variable in model.trainable_variables)
    drawing = ElementTree.fromstring(draw_network(model))
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert set(stages) <= set(texts)
    assert f"unet: {format_count(size.parameters)} trainable parameters" in texts
    # The places of the boxes: decoder below encoder of a finer level, all apart.
    boxes = [
        (float(box.attrib["x"]), float(box.attrib["y"]))
        for box in drawing.iter("{http://www.w3.org/2000/svg}rect")
        if "x" in box.attrib
    ]
    assert len(set(boxes)) == len(stages)
    table = layer_table(model)
    assert all(layer.name in table for layer in model.layers)


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999"), (5120, "5.1 k"), (31_036_481, "31.0 M"), (48 * 10**9, "48.0 G")],
)
def test_counts_are_rounded(count: int, text: str) -> None:
    assert format_count(count) == text
