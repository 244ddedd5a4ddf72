"""The settings of the Sharp UNet."""

from typing import Literal

from contract.config.network.unet import UNetSection


class SharpUNet(UNetSection):
    """A UNet whose skip connections are sharpened by a fixed filter."""

    name: Literal["sharp_unet"] = "sharp_unet"
    """The Sharp UNet (Zunair & Ben Hamza 2021)."""
