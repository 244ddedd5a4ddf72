"""The table of the contract of all networks: one row per network.

tests/trainer/networks/test_registry.py and tests/end_to_end/test_networks.py use it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NetworkCase:
    """How one network is tested.

    small: settings of a variant that trains in seconds on slices of 32 x 32. parameters: the
    trainable parameters of the network with the settings of `reference` and one grey channel, as
    docs/networks.md has them. steps and learning_rate: with which the small variant overfits four
    slices.
    """

    small: Mapping[str, Any]
    parameters: int
    reference: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 60
    learning_rate: float = 1e-2


_UNET = {"num_layers": 3, "base_filters": 8, "normalization": "batch"}
_UNET_REFERENCE = {"base_filters": 64, "normalization": "batch"}
_SWIN = {"patch_size": 2, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4}
_TRANS = {
    "base_filters": 4,
    "encoder_depths": [1, 1, 1],
    "hidden_size": 16,
    "num_transformer_layers": 1,
    "num_heads": 2,
    "mlp_dim": 32,
    "decoder_filters": [16, 16, 8, 8],
    "normalization": "batch",
}

CASES: Mapping[str, NetworkCase] = {
    # Each activation occurs, because an engine may lack one of them.
    "unet": NetworkCase({**_UNET, "activation": "mish"}, 31_036_481, _UNET_REFERENCE),
    "attention_unet": NetworkCase(
        {**_UNET, "deep_supervision": True, "activation": "silu"}, 32_432_965, _UNET_REFERENCE
    ),
    "sharp_unet": NetworkCase({**_UNET, "activation": "leaky_relu"}, 31_036_481, _UNET_REFERENCE),
    "unet3_plus": NetworkCase(
        {**_UNET, "deep_supervision": True, "classification_guided": True},
        26_964_097,
        _UNET_REFERENCE,
        steps=40,
    ),
    "u2_net": NetworkCase(
        {"variant": "small", "base_filters": 16, "normalization": "none"},
        43_994_317,
        {"normalization": "batch"},
        steps=40,
        learning_rate=3e-3,
    ),
    "multires_unet": NetworkCase({"num_layers": 3, "base_filters": 8}, 7_244_528),
    "pyramid_pooling_unet": NetworkCase(
        {**_UNET, "deep_supervision": True, "activation": "elu"}, 35_583_873, _UNET_REFERENCE
    ),
    "swin_unet": NetworkCase({**_SWIN, "drop_path_rate": 0.1}, 27_165_061, learning_rate=3e-3),
    # The network of the default settings has 11 more layers in its transformer: 105,315,729.
    "trans_unet": NetworkCase(
        _TRANS, 27_349_137, {"num_transformer_layers": 1}, learning_rate=5e-3
    ),
    "efficient_unet": NetworkCase({}, 10_071_373, steps=40, learning_rate=3e-3),
    "deeplab_v3_plus": NetworkCase(
        {"atrous_rates": [1, 2], "decoder_filters": 32}, 40_373_345, steps=30, learning_rate=1e-3
    ),
}
