"""The settings of a bundle, of which only some can change for an evaluation."""

import pytest

from contract.errors import ConfigError
from contract.storage import LocalStorage
from trainer.evaluation.bundle_config import load_bundle_config


def test_only_settings_with_an_effect_on_an_evaluation_can_change(thresholding):
    bundle = LocalStorage(thresholding)
    config = load_bundle_config(bundle, ["predict.batch_size=2"], {"storage": {"root": "/work"}})
    assert (config.predict.batch_size, config.storage.root) == (2, "/work")
    for key, value in (
        ("predict.threshold", 0.4),
        ("train.epochs", 3),
        ("run.seed", 1),
        ("data.neighbours", 1),
        ("data.intensity_high", 100.0),
        ("data.gamma", 2.0),
        ("data.crop_rows", [0.1, 0.9]),
    ):
        with pytest.raises(ConfigError, match=rf"{key} cannot be changed"):
            load_bundle_config(bundle, [f"{key}={value}"], {})
        with pytest.raises(ConfigError, match=rf"{key} cannot be changed"):
            load_bundle_config(bundle, [], {key: value})
