"""What a network consists of: its size in numbers, a table of its layers, and a drawing."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from contract.plurals import pluralize
from trainer.visualization.network_graph import Stage, render_network_graph

# encoder_0_1_conv belongs to encoder_0, block2a_expand_conv to block2a, probability to itself.
_STAGE = re.compile(r"^(?:[a-z]+(?:_[a-z]+)*?_?\d+[a-z]?(?:_block\d+)?(?=_|$)|[a-z]+)")


@dataclass(frozen=True)
class NetworkSize:
    """The size of a network.

    Attributes:
        parameters: Trainable parameters.
        multiply_adds: Multiplications, each with its addition, of the convolutions and matrix
            products for one slice.
    """

    parameters: int
    multiply_adds: int


def measure_network(model: keras.Model) -> NetworkSize:
    """The size of a network with inputs of a fixed height and width."""
    return NetworkSize(count_parameters(model.trainable_weights), count_multiply_adds(model))


def count_parameters(variables: Sequence[Any]) -> int:
    """How many numbers the variables have."""
    return sum(math.prod(variable.shape) for variable in variables)


def count_multiply_adds(model: keras.Model) -> int:
    """The multiply-adds of the convolutions and matrix products for one slice.

    Those that TensorFlow computes: with dilation a few more, for sides that it pads.
    """
    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    forward = tf.function(lambda slices: model(slices, training=False), autograph=False)
    graph = forward.get_concrete_function(spec).graph
    return sum(_multiply_adds(operation) for operation in graph.get_operations())


def _multiply_adds(operation: Any) -> int:
    """Those of one operation: for each number of the result, the length of its sum."""
    if operation.type not in _SUM_LENGTHS:
        return 0
    # A transposed convolution is the gradient of a convolution, whose input it computes.
    result = (
        operation.inputs[2] if operation.type == "Conv2DBackpropInput" else operation.outputs[0]
    )
    return math.prod(result.shape) * _SUM_LENGTHS[operation.type](operation)


def _convolution(operation: Any) -> int:
    """Height, width and input channels of the kernel [h, w, C, F]."""
    return math.prod(operation.inputs[1].shape[:3])


def _depthwise(operation: Any) -> int:
    return math.prod(operation.inputs[1].shape[:2])


def _transposed(operation: Any) -> int:
    """Height, width and output channels of the kernel [h, w, F, C]: each input is spread."""
    height, width, filters, _ = operation.inputs[1].shape
    return height * width * filters


def _matrix_product(operation: Any) -> int:
    transposed = operation.type == "MatMul" and operation.get_attr("transpose_a")
    transposed |= operation.type == "BatchMatMulV2" and operation.get_attr("adj_x")
    return operation.inputs[0].shape[-2 if transposed else -1]


def _einsum(operation: Any) -> int:
    """The product of the sizes of the axes that are summed over."""
    terms, result = operation.get_attr("equation").decode().split("->")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms.split(","), operation.inputs, strict=True):
        sizes |= dict(zip(term, tensor.shape, strict=True))
    return math.prod(size for axis, size in sizes.items() if axis not in result)


_SUM_LENGTHS = {
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed,
    "MatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "Einsum": _einsum,
}


def layer_table(model: keras.Model) -> str:
    """Every layer with the shape of its output, its parameters and its inputs, as plain text."""
    lines: list[str] = []
    model.summary(
        line_length=130,
        positions=[0.4, 0.62, 0.72, 1.0],
        print_fn=lines.append,
        expand_nested=True,
    )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def draw_network(model: keras.Model) -> str:
    """The stages of a network as an SVG document."""
    parameters = count_parameters(model.trainable_weights)
    title = f"{model.name}: {format_count(parameters)} trainable parameters"
    return render_network_graph(title, find_stages(model))


def find_stages(model: keras.Model) -> list[Stage]:
    """The layers of a network joined to stages, by the beginning of their names."""
    layers: dict[str, list[Any]] = {}
    for layer in model.layers:
        layers.setdefault(stage_name(layer.name), []).append(layer)
    height = model.input_shape[1]
    shapes = {name: _output_shape(members[-1]) for name, members in layers.items()}
    return [
        Stage(
            name,
            [" x ".join(map(str, shapes[name])), _describe(members)],
            _level(shapes[name], height),
            sorted({source for each in members for source in _sources(each)} - {name}),
        )
        for name, members in layers.items()
    ]


def stage_name(layer_name: str) -> str:
    """The stage of a layer: encoder_0 of encoder_0_1_conv."""
    match = _STAGE.match(layer_name)
    return match[0] if match else layer_name


def _sources(layer: Any) -> Iterator[str]:
    for node in layer.inbound_nodes:
        for parent in node.iterate_inbound():
            yield stage_name(parent[0].name)


def _describe(layers: Sequence[Any]) -> str:
    count = pluralize(len(layers), "layer")
    weights = [weight for layer in layers for weight in layer.trainable_weights]
    return f"{count}, {format_count(count_parameters(weights))}" if weights else count


def _output_shape(layer: Any) -> tuple[int, ...]:
    """The shape of a layer's output for one slice; the last one of an encoder, the coarsest.

    Of its last call: an encoder is a model, whose own shapes have neither height nor width.
    """
    shapes = layer.inbound_nodes[-1].output_shapes
    return tuple((shapes[-1] if isinstance(shapes, list) else shapes)[1:])


def _level(shape: Sequence[int], height: int) -> float:
    """How often the height has been halved; of a sequence of tokens, as if they were a square."""
    if len(shape) == 3:
        return float(np.log2(height / shape[0]))
    return float(np.log2(height / math.sqrt(shape[0]))) if len(shape) == 2 else 0.0


def format_count(count: int) -> str:
    """31036481 as "31.0 M", 5120 as "5.1 k"."""
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return str(count)
