"""The section [network] as a union of one class per network."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.config import NETWORKS, Config, network_name, validate
from contract.config.loader import parse_toml, to_toml
from contract.config.network import AttentionUNet, UNet, section_classes
from contract.errors import ConfigError


def test_the_name_selects_the_class() -> None:
    for section in NETWORKS:
        name = network_name(section)
        config = validate({"network": {"name": name, "image_size": 256}}, "a.toml")
        assert type(config.network) is section
        assert validate(parse_toml(to_toml(config), "a.toml"), "a.toml") == config
    assert type(validate({"network": {"num_layers": 3}}, "a.toml").network) is UNet


def test_another_name_keeps_the_settings_that_both_networks_have() -> None:
    config = validate({"network": {"base_filters": 8, "num_layers": 3}}, "a.toml")
    other = config.with_values({"network.name": "attention_unet", "network.num_layers": 4})
    assert isinstance(other.network, AttentionUNet)
    assert (other.network.base_filters, other.network.num_layers) == (8, 4)


@pytest.mark.parametrize("first", map(network_name, NETWORKS))
@pytest.mark.parametrize("second", map(network_name, NETWORKS))
def test_another_network_has_its_own_defaults(first: str, second: str) -> None:
    config = validate({"network": {"name": first, "image_size": 256}}, "a.toml")
    expected = validate({"network": {"name": second, "image_size": 256}}, "a.toml")
    assert config.with_values({"network.name": second}) == expected


def test_the_classes_of_a_section_are_found() -> None:
    assert section_classes(Config.model_fields["network"].annotation) == NETWORKS


def test_a_field_that_is_not_a_section_has_no_classes() -> None:
    assert section_classes(int | None) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": [100, 30], "num_layers": 6}, r"must be at least 32 pixels .* not 30"),
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
