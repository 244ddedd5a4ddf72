"""The settings of the Attention UNet."""

from typing import Literal

from contract.config.network.unet import UNetSection


class AttentionUNet(UNetSection):
    """A UNet whose skip connections pass attention gates."""

    name: Literal["attention_unet"] = "attention_unet"
    """The Attention UNet (Oktay 2018)."""
