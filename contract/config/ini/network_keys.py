"""The networks of the dialect and their keys."""

from collections.abc import Mapping

from contract.config.ini import value_types as types

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

NETWORK_KEYS: Mapping[str, tuple[types.Reader, tuple[str, ...]]] = {
    "base_filters": (types.whole_number, ("base_filters",)),
    "num_layers": (types.whole_number, ("num_layers",)),
    "base_kernels": (types.pair, ("base_kernels",)),
    "dilation": (types.pair, ("dilation",)),
    "dropout_rate": (types.number, ("dropout_rate",)),
    "normalization": (types.flag, ("normalization",)),
    "activation": (types.text, ("activation",)),
    "efficientnet": (types.text, ("variant",)),
    "filters": (types.whole_number, ("base_filters",)),
    "max_filter": (types.whole_number, ("max_filters",)),
    "base_ksize": (types.pair, ("base_kernels",)),
    "filter_num_begin": (types.whole_number, ("filter_num_begin", "embed_dim")),
    "filter_num": (types.anything, ("filter_num", "decoder_filters")),
    "depth": (types.whole_number, ("depth", "num_layers")),
    "stack_num_down": (types.whole_number, ("stack_num_down",)),
    "stack_num_up": (types.whole_number, ("stack_num_up",)),
    "patch_size": (types.pair, ("patch_size",)),
    "num_heads": (types.anything, ("num_heads",)),
    "window_size": (types.anything, ("window_size",)),
    "num_mlp": (types.whole_number, ("num_mlp", "mlp_dim")),
    "shift_window": (types.flag, ("shift_window",)),
    "embed_dim": (types.whole_number, ("embed_dim", "hidden_size")),
    "num_transformer": (types.whole_number, ("num_transformer", "num_layers")),
    "hybrid": (types.flag, ("hybrid",)),
    "grid": (types.anything, ("grid",)),
    "hidden_size": (types.whole_number, ("hidden_size", "embed_dim")),
    "mlp_dim": (types.whole_number, ("mlp_dim", "num_mlp")),
    "decoder_channels": (types.anything, ("decoder_channels", "decoder_filters")),
    "num_skip": (types.whole_number, ("num_skip",)),
    "pretrain": (types.flag, ("pretrain",)),
    "freeze_enc_cnn": (types.flag, ("freeze_enc_cnn",)),
}
"""How the keys of a network are read, and the settings of [network] that may take each of them: the
first that the network has."""
