"""The networks of the dialect and their keys."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.config.ini import value_types as types
from contract.config.network import find_networks

NETWORK_NAMES: Mapping[str, str] = {
    "TensorflowUNet": "unet",
    "TensorflowSlightlyFlexibleUNet": "unet",
    "TensorFlowFlexUNet": "unet",
    "TensorflowAttentionUNet": "attention_unet",
    "TensorflowSharpUNet": "sharp_unet",
    "TensorflowMultiResUNet": "multires_unet",
    "TensorflowUNet3Plus": "unet3_plus",
    "TensorflowU2Net": "u2_net",
    "TensorflowEfficientUNet": "efficient_unet",
    "TensorflowEfficientNetB7UNet": "efficient_unet",
    "TensorflowSwinUNet": "swin_unet",
    "TensorflowTransUNet": "trans_unet",
    "TensorflowDeepLabV3Plus": "deeplab_v3_plus",
}
"""The network of each value of [model] model."""


@dataclass(frozen=True)
class NetworkKey:
    """A key of a network."""

    read: types.Reader
    settings: tuple[str, ...] = ()
    """The settings of [network] that may take it: the first that the network has."""
    without: str = ""
    """Why no network has such a setting."""


# Of two keys with the same setting the first is used.
NETWORK_KEYS: Mapping[str, NetworkKey] = {
    "base_filters": NetworkKey(types.whole_number, ("base_filters",)),
    "num_layers": NetworkKey(types.whole_number, ("num_layers", "num_transformer_layers")),
    "base_kernels": NetworkKey(types.pair, ("base_kernels",)),
    "dilation": NetworkKey(types.pair, ("dilation",)),
    "dropout_rate": NetworkKey(types.number, ("dropout_rate",)),
    "normalization": NetworkKey(types.flag, ("normalization",)),
    "activation": NetworkKey(types.text, ("activation",)),
    "efficientnet": NetworkKey(types.text, ("variant",)),
    "filters": NetworkKey(types.whole_number, ("base_filters",)),
    "max_filter": NetworkKey(types.whole_number, ("max_filters",)),
    "base_ksize": NetworkKey(types.pair, ("base_kernels",)),
    "filter_num_begin": NetworkKey(types.whole_number, ("embed_dim",)),
    "depth": NetworkKey(types.whole_number, ("depths",)),
    "stack_num_down": NetworkKey(types.whole_number, ("depths",)),
    "stack_num_up": NetworkKey(
        types.whole_number, without="the decoder has as many blocks as the encoder"
    ),
    "patch_size": NetworkKey(types.pair, ("patch_size",)),
    "num_heads": NetworkKey(types.anything, ("num_heads",)),
    "window_size": NetworkKey(types.anything, ("window_size",)),
    "shift_window": NetworkKey(types.flag, without="every second block has a shifted window"),
    "mlp_dim": NetworkKey(types.whole_number, ("mlp_dim",)),
    "num_mlp": NetworkKey(types.whole_number, ("mlp_dim",)),
    "hidden_size": NetworkKey(types.whole_number, ("hidden_size",)),
    "embed_dim": NetworkKey(types.whole_number, ("hidden_size",)),
    "num_transformer": NetworkKey(types.whole_number, ("num_transformer_layers",)),
    "decoder_channels": NetworkKey(types.anything, ("decoder_filters",)),
    "filter_num": NetworkKey(types.anything, without="the encoder is a ResNet of fixed stages"),
    "num_skip": NetworkKey(types.whole_number, without="there are always three skip connections"),
    "hybrid": NetworkKey(types.flag, without="the Transformer always follows a ResNet"),
    "grid": NetworkKey(types.anything, without="a token is one position of the ResNet's output"),
    "pretrain": NetworkKey(types.flag, without="pre-trained weights are not downloaded"),
    "freeze_enc_cnn": NetworkKey(types.flag, without="all layers of the ResNet are trained"),
}
"""How the keys of a network are read, and what takes them."""

_TRANSFORMER_KEYS = ("num_heads", "num_mlp", "stack_num_down", "stack_num_up", "patch_size")
ACTIVE_KEYS: Mapping[str, tuple[str, ...]] = {
    "unet": (
        "base_filters",
        "num_layers",
        "base_kernels",
        "dilation",
        "dropout_rate",
        "normalization",
        "activation",
    ),
    "attention_unet": ("base_filters", "num_layers", "dropout_rate"),
    "sharp_unet": ("filters", "max_filter", "base_ksize", "dilation"),
    "multires_unet": ("base_filters", "num_layers"),
    "unet3_plus": ("base_filters", "num_layers", "dropout_rate"),
    "u2_net": ("base_filters", "num_layers"),
    "efficient_unet": ("efficientnet",),
    "swin_unet": (
        *_TRANSFORMER_KEYS,
        "filter_num_begin",
        "depth",
        "window_size",
        "shift_window",
    ),
    "trans_unet": (
        *_TRANSFORMER_KEYS,
        "num_layers",
        "dropout_rate",
        "hybrid",
        "grid",
        "hidden_size",
        "mlp_dim",
        "decoder_channels",
        "num_skip",
        "pretrain",
        "freeze_enc_cnn",
        "filter_num",
        "embed_dim",
        "num_transformer",
    ),
    "deeplab_v3_plus": (),
}
"""The keys that have an effect on a network in those projects: a file has many others, which must
not change the network here."""


def describe_network_key(name: str) -> str:
    """The settings of a key and the networks that it counts for, or why there is none."""
    key = NETWORK_KEYS[name]
    settings = " or ".join(f"network.{each}" for each in key.settings)
    having = {network for each in key.settings for network in find_networks(each)}
    networks = ", ".join(
        network for network, keys in ACTIVE_KEYS.items() if name in keys and network in having
    )
    return f"{settings}, for {networks}" if settings else key.without
