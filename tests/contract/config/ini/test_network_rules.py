"""Which network, and which of its settings."""

from typing import Any

import pytest

from contract.config.ini.network_keys import ACTIVE_KEYS, NETWORK_KEYS, NETWORK_NAMES
from contract.config.ini.network_rules import translate_network
from contract.config.ini.outcome import Outcome, TranslationError, Values
from contract.config.network import NETWORKS, find_networks, network_name

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
        {
            key.removeprefix("network."): value
            for key, value in settings.items()
            if key.startswith("network.")
        }
    )


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_key_is_a_setting_of_the_network_or_has_a_reason(name: str) -> None:
    values: dict[str, Any] = dict.fromkeys(NETWORK_KEYS, 3) | {"normalization": True}
    values |= {"activation": "mish", "efficientnet": "B3", "dropout_rate": 0.1}
    for outcome in outcomes_of(name=name, **values):
        key = outcome.name[1]
        if key not in NETWORK_KEYS:
            continue
        settings = NETWORK_KEYS[key].settings
        has_setting = any(each in AVAILABLE[name].model_fields for each in settings)
        is_active = key in ACTIVE_KEYS.get(name, NETWORK_KEYS)
        assert bool(outcome.settings) == (has_setting and is_active), key
        assert outcome.settings or outcome.text


def test_every_setting_exists_once_all_networks_do() -> None:
    if missing := set(NETWORK_NAMES.values()) - AVAILABLE.keys():
        pytest.skip(f"this version does not have {', '.join(sorted(missing))}")
    for key, network_key in NETWORK_KEYS.items():
        assert all(map(find_networks, network_key.settings)), key
        networks = [name for name, keys in ACTIVE_KEYS.items() if key in keys]
        having = {each for name in network_key.settings for each in find_networks(name)}
        assert not network_key.settings or having & set(networks), key


@pytest.mark.skipif("swin_unet" not in AVAILABLE, reason="this version does not have swin_unet")
def test_the_keys_of_a_transformer() -> None:
    keys = {"depth": 3, "stack_num_down": 4, "patch_size": 4, "filter_num_begin": 64}
    settings = settings_of(model="TensorflowSwinUNet", **keys, num_heads=[2, 4, 8])
    assert settings["network.depths"] == [4, 4, 4]
    assert settings["network.embed_dim"] == 64
    assert settings["network.num_heads"] == [2, 4, 8]
    by_level = outcomes_of(model="TensorflowSwinUNet", window_size=[4, 2, 2, 2])
    assert "not supported" in [outcome.status for outcome in by_level]
    uniform = settings_of(model="TensorflowSwinUNet", window_size=[4, 4, 4, 4])
    assert uniform["network.window_size"] == 4


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


def test_of_two_keys_for_one_setting_the_first_is_used() -> None:
    outcomes = {
        outcome.name[1]: outcome
        for outcome in outcomes_of(name="trans_unet", hidden_size=96, embed_dim=64, mlp_dim=128)
    }
    assert outcomes["hidden_size"].settings == {"network.hidden_size": 96}
    assert outcomes["embed_dim"].text == "hidden_size is used"
    assert outcomes["mlp_dim"].settings == {"network.mlp_dim": 128}


def test_an_encoder_without_weights_is_not_frozen() -> None:
    b7 = settings_of(model="TensorflowEfficientNetB7UNet")
    assert b7 == {"network.name": "efficient_unet", "network.variant": "b7"}


@pytest.mark.parametrize(
    ("given", "overrides", "expected"),
    [
        ({}, {}, "normalized"),
        ({("model", "input_normalize"): False}, {}, "raw"),
        (
            {("model", "input_normalize"): False, ("dataset", "image_normalize"): True},
            {},
            "normalized",
        ),
        ({("dataset", "image_normalize"): True}, {}, "normalized_twice"),
        ({("model", "normalization"): True}, {}, None),
        ({("model", "normalization"): True}, {"network.normalization": "none"}, "normalized"),
        ({}, {"network.normalization": "group"}, None),
        ({}, {"network.max_filters": 256}, None),
        ({}, {"data.neighbours": 1}, None),
        ({}, {"data.normalize": "foreground"}, None),
        ({}, {"data.intensity_high": 255}, "normalized"),
        ({}, {"network.name": "u2_net"}, None),
        ({("model", "model"): "TensorflowUNet3Plus"}, {}, None),
        ({("image", "color_converter"): "cv2.COLOR_BGR2HSV_FULL"}, {}, "normalized"),
        ({("image", "color_converter"): "cv2.COLOR_BGR2HSV"}, {}, None),
        ({("image", "color_converter"): "cv2.COLOR_BGR2LUV"}, {}, None),
        ({("model", "num_classes"): 3}, {}, None),
        (
            {("model", "num_classes"): 3, ("model", "final_activation"): "softmax"},
            {},
            "normalized",
        ),
    ],
)
def test_intensities_of_the_weights(
    given: dict[tuple[str, str], Any], overrides: dict[str, Any], expected: str | None
) -> None:
    settings: dict[str, Any] = {}
    for outcome in translate_network(Values(given), overrides):
        settings |= outcome.settings
    assert settings.get("train.antillia_weights") == expected
    assert settings.get("train.antillia_channels") == (expected and "bgr")


def test_channels_of_the_weights() -> None:
    settings: dict[str, Any] = {}
    for outcome in translate_network(Values({("dataset", "color_order"): "RGB"}), {}):
        settings |= outcome.settings
    assert settings["train.antillia_channels"] == "rgb"
