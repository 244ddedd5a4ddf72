"""The section [network] as a union of one class per network."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from contract.config.network import UNet, discriminated_union, section_classes
from contract.config.section import Section


class Tiny(Section):
    """A second network."""

    name: Literal["tiny"] = "tiny"
    """Its name."""
    width: int = 1
    """A setting that the UNet does not have."""


def config_with(*networks: type[Section]) -> type[BaseModel]:
    annotation = discriminated_union(networks)
    return create_model(
        "Networks", __config__=ConfigDict(extra="forbid"), network=(annotation, ...)
    )


def test_the_name_selects_the_class() -> None:
    config = config_with(UNet, Tiny)
    tiny = config.model_validate({"network": {"name": "tiny", "width": 3}})
    assert tiny.model_dump()["network"] == {"name": "tiny", "width": 3}
    unet = config.model_validate({"network": {"name": "unet", "num_layers": 3}})
    assert unet.model_dump()["network"]["num_layers"] == 3


def test_a_setting_of_another_network_is_unknown() -> None:
    with pytest.raises(ValidationError, match="width"):
        config_with(UNet, Tiny).model_validate({"network": {"name": "unet", "width": 3}})


@pytest.mark.parametrize("networks", [(UNet,), (UNet, Tiny)])
def test_the_classes_of_a_section_are_found(networks: tuple[type[Section], ...]) -> None:
    annotation = config_with(*networks).model_fields["network"].annotation
    assert section_classes(annotation) == networks


def test_a_field_that_is_not_a_section_has_no_classes() -> None:
    assert section_classes(int | None) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 100, "num_layers": 5}, r"must be divisible by 16"),
        ({"base_kernels": 4}, r"network\.base_kernels = 4 must be odd"),
    ],
)
def test_values_that_do_not_fit_each_other_are_rejected(
    settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        UNet.model_validate(settings)
