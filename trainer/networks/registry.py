"""The networks by name, and what all of them share: input, padding and output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras as keras

from contract.config import Network
from trainer.networks import (
    attention_unet,
    deeplab_v3_plus,
    efficient_unet,
    multires_unet,
    pyramid_pooling_unet,
    sharp_unet,
    swin_unet,
    trans_unet,
    u2_net,
    unet,
    unet3_plus,
)
from trainer.networks.layer_weights import weighted_layers
from trainer.networks.outputs import NetworkOutputs, OutputLayout, pack_outputs

Builder = Callable[[Any, tf.Tensor, int], NetworkOutputs]
"""build(network, slices, num_classes): the outputs of a network for its section of settings.

slices: normalized intensities [B, H, W, C], whose sides are divisible by network.size_multiple.
"""

BUILDERS: dict[str, Builder] = {
    "unet": unet.build,
    "attention_unet": attention_unet.build,
    "sharp_unet": sharp_unet.build,
    "unet3_plus": unet3_plus.build,
    "u2_net": u2_net.build,
    "multires_unet": multires_unet.build,
    "pyramid_pooling_unet": pyramid_pooling_unet.build,
    "swin_unet": swin_unet.build,
    "trans_unet": trans_unet.build,
    "efficient_unet": efficient_unet.build,
    "deeplab_v3_plus": deeplab_v3_plus.build,
}


ENCODER_PREFIXES = ("encoder", "embed_", "transformer_", "input_")
"""How the names of the layers of an encoder begin, in every network.

The encoder of a Swin UNet includes the patch embedding, and that of a TransUNet its transformer;
that of efficient_unet and deeplab_v3_plus is the model of keras.applications, with the conversion
of its input, and not the pyramid pooling.
"""


@dataclass(frozen=True)
class BuiltNetwork:
    """A network as Keras models that share their layers and have the same weights.

    Attributes:
        training_model: From normalized slices [B, H, W, C] to all outputs, as `layout` says.
        inference_model: From the same slices to the probability of each class [B, H, W, K].
        layout: Where each output is in the channels of the training model.
    """

    training_model: keras.Model
    inference_model: keras.Model
    layout: OutputLayout


def build_network(network: Network, num_classes: int, input_channels: int) -> BuiltNetwork:
    """Build the network of the settings.

    Args:
        network: The settings [network].
        num_classes: K, the number of classes, without the background.
        input_channels: C, the channels of a slice and of its neighbours (Config.input_channels).
    """
    slices = keras.Input((*network.image_shape, input_channels), name="slices")
    margins = [find_margins(side, network.size_multiple) for side in network.image_shape]
    has_margins = any(sum(pair) for pair in margins)
    padded = keras.layers.ZeroPadding2D(margins, name="pad")(slices) if has_margins else slices
    maps, layout = pack_outputs(BUILDERS[network.name](network, padded, num_classes), num_classes)
    if has_margins:
        maps = keras.layers.Cropping2D(margins, dtype="float32", name="crop")(maps)
    training_model = keras.Model(slices, maps, name=network.name)
    if maps.shape[-1] == num_classes:
        return BuiltNetwork(training_model, training_model, layout)
    select = keras.layers.Lambda(
        lambda values: values[..., :num_classes], dtype="float32", name="select_probability"
    )
    inference_model = keras.Model(slices, select(maps), name=network.name)
    return BuiltNetwork(training_model, inference_model, layout)


def encoder_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the encoder of a network that have weights."""
    named = weighted_layers(model).items()
    return [layer for name, layer in named if name.startswith(ENCODER_PREFIXES)]


def find_margins(side: int, multiple: int) -> tuple[int, int]:
    """The pixels before and after a side with which it is divisible by a number."""
    missing = -side % multiple
    return missing // 2, missing - missing // 2
