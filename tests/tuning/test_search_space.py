"""Draws: the same for the same seed, inside the space, never twice, better where TPE learns."""

import re
from typing import Any

import numpy as np
import pytest

from contract.config import Config, ParameterSpec, Sweep
from contract.errors import ConfigError
from tuning.search_space import Direction, Observation, check_space, suggest

SPACE = {
    "train.learning_rate": ParameterSpec(loguniform=(1e-4, 1e-1)),
    "network.dropout_rate": ParameterSpec(uniform=(0.0, 0.5)),
    "network.base_kernels": ParameterSpec(choice=(3, 5, 7)),
    "network.base_filters": ParameterSpec.model_validate({"int": [4, 8]}),
}


def suggest_values(
    number: int,
    history: list[Observation] | None = None,
    direction: Direction = "maximize",
    seed: int = 3,
    **settings: Any,
) -> dict[str, Any] | None:
    sweep = Sweep(**{"space": SPACE, "search_algorithm": "random", **settings})
    return suggest(sweep, direction, seed, number, history or [])


def test_a_draw_is_a_function_of_seed_and_number() -> None:
    first = [suggest_values(number) for number in range(1, 6)]
    assert first == [suggest_values(number) for number in range(1, 6)]
    assert len({str(values) for values in first}) == 5
    assert first != [suggest_values(number, seed=4) for number in range(1, 6)]


def test_the_order_of_the_settings_in_the_file_does_not_matter() -> None:
    assert suggest_values(1) == suggest_values(1, space=dict(reversed(SPACE.items())))


def test_draws_stay_inside_the_space() -> None:
    for values in (suggest_values(number) for number in range(1, 40)):
        assert values is not None
        assert 1e-4 <= values["train.learning_rate"] <= 1e-1
        assert 0.0 <= values["network.dropout_rate"] <= 0.5
        assert values["network.base_kernels"] in (3, 5, 7)
        assert isinstance(values["network.base_filters"], int)
        assert 4 <= values["network.base_filters"] <= 8


@pytest.mark.parametrize("search_algorithm", ["random", "tpe"])
def test_a_choice_may_be_a_number_or_a_pair(search_algorithm: str) -> None:
    sizes = (64, (96, 160), (160, 96))
    space = {"network.image_size": ParameterSpec(choice=sizes)}
    history: list[Observation] = []
    while values := suggest_values(
        len(history) + 1, history, space=space, search_algorithm=search_algorithm
    ):
        history.append(Observation(values, "completed", (0.5,), 0.5))
        assert Config().with_values(values).network.image_size == values["network.image_size"]
    assert {seen.values["network.image_size"] for seen in history} == set(sizes)


@pytest.mark.parametrize("search_algorithm", ["random", "tpe"])
def test_a_setting_is_drawn_for_the_networks_that_it_counts_for(search_algorithm: str) -> None:
    space = {
        "network.name": ParameterSpec(choice=("unet", "sharp_unet", "attention_unet")),
        "network.base_filters": ParameterSpec(choice=(4, 8), networks=("unet", "sharp_unet")),
        "network.num_layers": ParameterSpec.model_validate(
            {"int": [2, 3], "networks": ["attention_unet"]}
        ),
    }
    history: list[Observation] = []
    while values := suggest_values(
        len(history) + 1, history, space=space, search_algorithm=search_algorithm
    ):
        history.append(Observation(values, "completed", (0.5,), 0.5))
    drawn = {tuple(sorted((k, str(v)) for k, v in seen.values.items())) for seen in history}
    # TPE may give up before it draws the last of the six.
    assert len(drawn) == len(history) >= 5
    for seen in history:
        is_attention = seen.values["network.name"] == "attention_unet"
        assert ("network.num_layers" in seen.values) == is_attention
        assert ("network.base_filters" in seen.values) != is_attention


@pytest.mark.parametrize("search_algorithm", ["random", "tpe"])
def test_no_values_come_twice_and_a_small_space_is_exhausted(search_algorithm: str) -> None:
    space = {
        "network.base_kernels": ParameterSpec(choice=(3, 5)),
        "train.num_workers": ParameterSpec(choice=(1, 2)),
    }
    history: list[Observation] = []
    while (
        values := suggest_values(
            len(history) + 1, history, space=space, search_algorithm=search_algorithm
        )
    ) is not None:
        history.append(Observation(values, "completed", (0.5,), 0.5))
    assert len({str(trial.values) for trial in history}) == 4
    assert len(history) == 4


@pytest.mark.parametrize(("direction", "share"), [("maximize", 0.9), ("minimize", 0.1)])
def test_tpe_learns_where_the_good_values_are(direction: Direction, share: float) -> None:
    space = {"train.learning_rate": ParameterSpec(loguniform=(1e-4, 1e-1))}
    history = [
        Observation({"train.learning_rate": 10**-power}, "completed", (4 - power,), 4 - power)
        for power in np.linspace(1, 4, 24)
    ]
    history += [
        Observation({"train.learning_rate": 2e-3}, "running"),
        Observation({"train.learning_rate": 3e-3}, "failed"),
        Observation({"train.learning_rate": 4e-3}, "out of time"),
        Observation({"train.learning_rate": 5e-3}, "paused", (0.1,), 0.1),
    ]
    draws = [
        suggest_values(number, history, space=space, search_algorithm="tpe", direction=direction)
        for number in range(30, 50)
    ]
    high = np.mean([values["train.learning_rate"] > 3e-3 for values in draws if values])
    assert high >= share if share > 0.5 else high <= share


def searching(**space) -> Config:
    return Config.model_validate({"sweep": {"space": space}})


def test_a_space_that_can_be_searched_passes() -> None:
    check_space(
        searching(
            **{
                "train.learning_rate": {"loguniform": [1e-4, 1e-1]},
                "network.base_filters": {"int": [4, 8]},
                "network.max_filters": {"choice": [64, 128]},
                "data.augment.rotation": {"uniform": [0, 30]},
                "data.intensity_high": {"uniform": [100, 255]},
                "data.normalize": {"choice": ["window", "foreground"]},
                "train.loss": {"choice": ["dice_loss", "bce_dice_loss"]},
            }
        )
    )


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ({}, "sweep.space is empty"),
        ({"train.num_workers": {"choice": [1, 2]}}, "train.num_workers does not change"),
        ({"train.keep_checkpoints": {"int": [1, 3]}}, "train.keep_checkpoints does not change"),
        ({"train.monitor": {"choice": ["val_loss", "val_dice_coef"]}}, "trials are compared"),
        ({"data.valid_fraction": {"uniform": [0.1, 0.3]}}, "is the same for all trials"),
        ({"data.mask_threshold": {"int": [1, 200]}}, "is the same for all trials"),
        ({"predict.threshold": {"uniform": [0.3, 0.7]}}, "is the same for all trials"),
    ],
)
def test_a_space_that_cannot_be_searched_is_rejected(space: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_space(searching(**space))


def test_losses_are_not_compared_by_themselves() -> None:
    config = searching(**{"train.loss": {"choice": ["dice_loss", "bce_dice_loss"]}})
    with pytest.raises(ConfigError, match=r"set train\.monitor to another score"):
        check_space(config.with_values({"train.monitor": "val_loss"}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"network.num_layers": {"choice": [3], "networks": ["unet"]}},
            "network.num_layers names networks, but all trials have unet: remove networks, or "
            "search network.name too",
        ),
        (
            {
                "network.name": {"choice": ["unet", "sharp_unet"]},
                "network.num_layers": {"choice": [3], "networks": ["attention_unet"]},
            },
            "network.num_layers counts for attention_unet, but no trial has this network: they "
            "have unet, sharp_unet (network.name)",
        ),
        (
            {
                "network.name": {"choice": ["unet", "u2_net"]},
                "network.num_layers": {"choice": [3]},
            },
            "network.num_layers is not a setting of u2_net: name the networks that it counts "
            'for, such as networks = ["unet"]',
        ),
        (
            {
                "network.name": {"choice": ["unet", "sharp_unet"]},
                "train.epochs": {"choice": [3], "networks": ["unet"]},
            },
            "train.epochs does not depend on the network",
        ),
    ],
)
def test_a_search_space_names_networks_that_have_the_setting(
    space: dict[str, Any], message: str
) -> None:
    config = Config.model_validate({"sweep": {"space": space}})
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_space(config)


def test_a_file_of_weights_fits_one_variant() -> None:
    network = {"name": "efficient_unet", "encoder_weights": "b0.h5"}
    space = {"network.variant": {"choice": ["b0", "b1"]}}
    config = Config.model_validate({"network": network, "sweep": {"space": space}})
    with pytest.raises(ConfigError, match=r"network\.variant cannot be searched with network\.enc"):
        check_space(config)


def test_all_trials_start_from_one_bundle() -> None:
    values = {"train.start_from": {"choice": ["one", "two"]}}
    config = Config.model_validate({"sweep": {"space": values}})
    with pytest.raises(
        ConfigError, match=r"train\.start_from is checked against the patients once"
    ):
        check_space(config)
    check_space(config.with_values({"sweep.space": {"train.encoder_lr_factor": {"choice": [0.1]}}}))


def test_another_network_is_trained_with_a_search_space_of_one() -> None:
    config = Config.model_validate({"sweep": {"space": {"network.base_kernels": {"choice": [3]}}}})
    other = config.with_values({"network.name": "u2_net"})
    with pytest.raises(ConfigError, match=r"network\.base_kernels is not a setting of u2_net"):
        check_space(other)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, r"set data\.folds to their number"),
        ({"data.folds": 3, "train.patience": 2}, r"train\.patience = 2 would stop the folds"),
        ({"data.folds": 3, "train.num_workers": 2}, "one worker per trial, not 2"),
    ],
)
def test_trials_by_folds_need_folds_that_end_together_and_one_worker(
    values: dict[str, object], reason: str
) -> None:
    space = {"train.learning_rate": {"choice": [0.1]}}
    config = Config.model_validate(
        {"train": {"num_workers": 1}, "sweep": {"cross_validate": True, "space": space}}
    )
    check_space(config.with_values({"data.folds": 3}))
    with pytest.raises(ConfigError, match=reason):
        check_space(config.with_values(values))
