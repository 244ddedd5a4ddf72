"""Which network, and which of its settings."""

from typing import Any

import pytest

from contract.config.ini.network_keys import NETWORK_KEYS, NETWORK_NAMES
from contract.config.ini.network_rules import translate_network
from contract.config.ini.outcome import Outcome, TranslationError, Values
from contract.config.network import NETWORKS, network_name

AVAILABLE = {network_name(each): each for each in NETWORKS}


def outcomes_of(**model: Any) -> list[Outcome]:
    overrides = {"network.name": model.pop("name")} if "name" in model else {}
    given = {("model", key): value for key, value in model.items()}
    return list(translate_network(Values(given), overrides))


def settings_of(**model: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for outcome in outcomes_of(**model):
        result |= outcome.settings
    return result


@pytest.mark.parametrize(("model", "name"), NETWORK_NAMES.items())
def test_every_network_of_the_projects(model: str, name: str) -> None:
    """A network that is added to NETWORKS is found by its name."""
    if name not in AVAILABLE:
        with pytest.raises(TranslationError, match=f"{name}, which this version does not have"):
            settings_of(model=model)
        return
    settings = settings_of(model=model)
    assert settings["network.name"] == name
    AVAILABLE[name].model_validate(
        {key.removeprefix("network."): value for key, value in settings.items()}
    )


@pytest.mark.parametrize("name", AVAILABLE)
def test_keys_are_settings_of_the_network_or_named_as_not_applicable(name: str) -> None:
    values: dict[str, Any] = dict.fromkeys(NETWORK_KEYS, 3) | {"normalization": True}
    values |= {"activation": "mish", "efficientnet": "B3", "dropout_rate": 0.1}
    for outcome in outcomes_of(name=name, **values):
        key = outcome.name[1]
        if key not in NETWORK_KEYS:
            continue
        has_one = any(each in AVAILABLE[name].model_fields for each in NETWORK_KEYS[key][1])
        assert bool(outcome.settings) == has_one, key
        if not has_one:
            assert outcome.text.startswith(f"not a setting of {name}")


def test_another_network_may_be_chosen() -> None:
    settings = settings_of(model="TensorflowSwinUNet", name="attention_unet", depth=4)
    assert settings["network.name"] == "attention_unet"


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ({"image_width": 512, "image_height": 512}, 512),
        ({"image_width": 256, "image_height": 128}, [128, 256]),
        ({"image_width": 256}, 256),
        ({}, None),
    ],
)
def test_the_image_size_has_the_height_first(sides: dict[str, int], size: Any) -> None:
    assert settings_of(**sides).get("network.image_size") == size


@pytest.mark.parametrize(("given", "name"), [(True, "batch"), (False, "none")])
def test_normalization(given: bool, name: str) -> None:
    assert settings_of(normalization=given)["network.normalization"] == name
    assert settings_of()["network.normalization"] == "none"


def test_a_value_that_fits_in_no_form_is_left_to_the_settings() -> None:
    assert settings_of(base_filters=10**6)["network.base_filters"] == 10**6
