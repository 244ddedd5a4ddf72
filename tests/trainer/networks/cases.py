"""The table of the contract test of all networks (test_contract.py): one row per network."""

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

CASES: Mapping[str, NetworkCase] = {
    "unet": NetworkCase(_UNET, 31_036_481, _UNET_REFERENCE),
    "attention_unet": NetworkCase({**_UNET, "deep_supervision": True}, 32_432_965, _UNET_REFERENCE),
    "sharp_unet": NetworkCase(_UNET, 31_036_481, _UNET_REFERENCE),
    "efficient_unet": NetworkCase({}, 10_071_373, steps=40, learning_rate=3e-3),
    "deeplab_v3_plus": NetworkCase(
        {"atrous_rates": [1, 2], "decoder_filters": 32}, 40_373_601, steps=30, learning_rate=1e-3
    ),
}
