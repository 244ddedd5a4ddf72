"""The settings of DeepLabV3+."""

from typing import Annotated, Literal

from pydantic import Field

from contract.config.network.pretrained import PretrainedEncoderSection
from contract.config.network.unet import Activation, Normalization

AtrousRates = Annotated[
    tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(strict=False, min_length=1, max_length=6)
]


class DeepLabV3Plus(PretrainedEncoderSection):
    """A ResNet-50 with atrous spatial pyramid pooling, optionally with pre-trained weights."""

    name: Literal["deeplab_v3_plus"] = "deeplab_v3_plus"
    """DeepLabV3+ (Chen 2018) with the encoder ResNet-50."""
    atrous_rates: AtrousRates = (6, 12, 18)
    """Atrous rates of the 3 x 3 convolutions of the pyramid pooling, whose grid has a sixteenth of
    the sides of the slice. A rate that is not smaller than a side of the grid acts as a 1 x 1
    convolution."""
    decoder_filters: Annotated[int, Field(ge=1, le=1024)] = 256
    """Filters of each branch of the pyramid pooling and of each convolution of the decoder."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Dropout rate after the atrous spatial pyramid pooling."""
    normalization: Normalization = "group"
    """Normalization of the pyramid pooling and the decoder. batch: statistics per worker;
    sync_batch: over all workers; group: per sample. The encoder has batch normalization with
    statistics per worker."""
    activation: Activation = "relu"
    """Activation after each convolution of the pyramid pooling and the decoder; that of the encoder
    is ReLU."""

    @property
    def size_multiple(self) -> int:
        """The output stride of the encoder."""
        return 16

    @property
    def encoder_weights_file(self) -> str:
        """The name of the file with ImageNet weights that Keras publishes for this encoder."""
        return "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
