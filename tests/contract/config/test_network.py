"""The section [network] as a union of one class per network."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from contract.config import Config, validate
from contract.config.loader import parse_toml, to_toml
from contract.config.network import UNet, discriminated_union, section_classes
from contract.config.section import Section
from contract.errors import ConfigError


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
        ({"image_size": [100, 96]}, r"= \[100, 96\]: the height 100 must be divisible by 16"),
        ({"image_size": [96, 100]}, r"= \[96, 100\]: the width 100 must be divisible by 16"),
        ({"base_kernels": 4}, r"network\.base_kernels = 4 must be odd"),
    ],
)
def test_values_that_do_not_fit_each_other_are_rejected(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        UNet.model_validate(settings)


@pytest.mark.parametrize(
    ("image_size", "shape"),
    [(96, (96, 96)), ([96, 96], (96, 96)), ([96, 160], (96, 160)), ((96, 160), (96, 160))],
)
def test_an_image_size_is_one_number_or_height_and_width(image_size: Any, shape: Any) -> None:
    network = UNet(image_size=image_size)
    assert network.image_shape == shape
    assert UNet.model_validate(network.model_dump(mode="json")) == network


def test_a_pair_of_equal_sides_is_the_same_setting_as_one_number() -> None:
    pair = Config().with_values({"network.image_size": [96, 96]})
    one = Config().with_values({"network.image_size": 96})
    assert pair == one
    assert pair.fingerprint() == one.fingerprint()
    rectangle = Config().with_values({"network.image_size": [96, 160]})
    assert rectangle.fingerprint() != one.fingerprint()


def test_an_image_size_survives_its_file() -> None:
    config = Config().with_values({"network.image_size": [96, 160]})
    assert validate(parse_toml(to_toml(config), "a.toml"), "a.toml") == config


@pytest.mark.parametrize(
    ("image_size", "message"),
    [
        (8, "network.image_size = 8: must be at least 16 and at most 2048"),
        ([96, 8], "network.image_size = [96, 8]: the width must be at least 16"),
        ([4096, 96], "network.image_size = [4096, 96]: the height must be at least 16"),
        ([96], "must be one whole number of pixels, or [height, width]"),
        ([96.0, 96], "must be one whole number of pixels, or [height, width]"),
        (True, "must be one whole number of pixels, or [height, width]"),
        ("96", "must be one whole number of pixels, or [height, width]"),
    ],
)
def test_a_wrong_image_size_is_one_clause(image_size: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate({"network": {"image_size": image_size}}, "a.toml")
    assert message in str(error.value)
