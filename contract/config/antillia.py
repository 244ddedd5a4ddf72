"""What the flexible UNet of the Antillia projects has in common with network.name = "unet"."""

from collections.abc import Mapping
from typing import Any

ANTILLIA_SETTINGS: Mapping[str, Any] = {
    "network.name": "unet",
    "network.normalization": "none",
    "network.max_filters": None,
    "network.deep_supervision": False,
    "data.normalize": "window",
    "data.intensity_low": 0.0,
    "data.intensity_high": 255.0,
    "data.neighbours": 0,
}
"""The values of settings that a network needs so that those projects have it too; None: absent."""
