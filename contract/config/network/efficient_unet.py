"""The settings of the EfficientNet UNet."""

from typing import Annotated, Literal

from pydantic import Field

from contract.config.network.pretrained import PretrainedEncoderSection
from contract.config.network.unet import Activation, Normalization


class EfficientUNet(PretrainedEncoderSection):
    """A UNet whose encoder is an EfficientNet, optionally with pre-trained weights."""

    name: Literal["efficient_unet"] = "efficient_unet"
    """A UNet with the encoder EfficientNet (Tan & Le 2019)."""
    variant: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = "b0"
    """Which EfficientNet, from 4 million (b0) to 64 million (b7) parameters."""
    trainable_encoder_layers: Annotated[int, Field(ge=0)] | None = None
    """How many of the last layers of the encoder are trained; the others keep their initial
    weights, and their batch normalization its statistics. Layers are counted as in
    keras.applications: the last 61 of b7 are its stage 7 and the convolution after it. Absent: all.
    Useful only with pre-trained weights."""
    base_filters: Annotated[int, Field(ge=1, le=512)] = 16
    """Filters of the decoder's first level, the finest; they double with each level."""
    max_filters: Annotated[int, Field(ge=1)] | None = None
    """Cap on the filters of a level of the decoder; absent: none."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """The dropout rate of a level of the decoder is this times its index (0 for the first), at most
    0.5. The encoder has no dropout."""
    normalization: Normalization = "group"
    """Normalization of the decoder. batch: statistics per worker; sync_batch: over all workers;
    group: per sample. The encoder has batch normalization with statistics per worker."""
    activation: Activation = "relu"
    """Activation after each convolution of the decoder; that of the encoder is SiLU."""

    @property
    def size_multiple(self) -> int:
        """The encoder halves the sides five times."""
        return 32

    @property
    def size_reason(self) -> str:
        """The encoder."""
        return " (the encoder divides the sides by 32)"

    @property
    def encoder_weights_file(self) -> str:
        """The name of the file with ImageNet weights that Keras publishes for this encoder."""
        return f"efficientnet{self.variant}_notop.h5"
