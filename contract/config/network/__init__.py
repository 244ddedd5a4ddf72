"""The section [network]: a union of one section class per network, discriminated by name.

A new network is a module with its section class here, and an entry in NETWORKS. A key that a
network does not have is an error that names the networks that have it.
"""

from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import Field

from contract.config.network.attention_unet import AttentionUNet
from contract.config.network.deeplab_v3_plus import DeepLabV3Plus
from contract.config.network.efficient_unet import EfficientUNet
from contract.config.network.multires_unet import MultiResUNet
from contract.config.network.network import Network, check_divisible, image_sides
from contract.config.network.pretrained import PretrainedEncoderSection, encoder_weights
from contract.config.network.pyramid_pooling_unet import PyramidPoolingUNet
from contract.config.network.sharp_unet import SharpUNet
from contract.config.network.swin_unet import SwinUNet
from contract.config.network.trans_unet import TransUNet
from contract.config.network.u2_net import U2Net
from contract.config.network.unet import UNet
from contract.config.network.unet3_plus import UNet3Plus
from contract.config.section import Section

NETWORKS: tuple[type[Network], ...] = (
    UNet,
    AttentionUNet,
    MultiResUNet,
    EfficientUNet,
    UNet3Plus,
    U2Net,
    SharpUNet,
    SwinUNet,
    TransUNet,
    DeepLabV3Plus,
    PyramidPoolingUNet,
)
"""The section class of every network, the default first."""


def network_name(section: type[Network]) -> str:
    """The name of a network, from its section class."""
    return section.model_fields["name"].default


def find_networks(setting: str) -> tuple[str, ...]:
    """The names of the networks that have a setting, such as "base_filters"."""
    return tuple(network_name(each) for each in NETWORKS if setting in each.model_fields)


def section_classes(annotation: Any) -> tuple[type[Section], ...]:
    """The section classes of a field's annotation: one, those of a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    if get_origin(annotation) is Union:
        members = get_args(annotation)
        if all(isinstance(member, type) and issubclass(member, Section) for member in members):
            return members
    return ()


if TYPE_CHECKING:
    NetworkUnion = Network
else:
    NetworkUnion = Annotated[Union[NETWORKS], Field(discriminator="name")]  # noqa: UP007

__all__ = [
    "NETWORKS",
    "AttentionUNet",
    "DeepLabV3Plus",
    "EfficientUNet",
    "MultiResUNet",
    "Network",
    "NetworkUnion",
    "PretrainedEncoderSection",
    "PyramidPoolingUNet",
    "SharpUNet",
    "SwinUNet",
    "TransUNet",
    "U2Net",
    "UNet",
    "UNet3Plus",
    "check_divisible",
    "encoder_weights",
    "find_networks",
    "image_sides",
    "network_name",
    "section_classes",
]
