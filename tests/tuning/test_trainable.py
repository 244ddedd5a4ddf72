"""The settings of a trial, and the reason why it failed."""

import pytest

from contract.config import Config
from contract.errors import ConfigError, DataError
from tuning.trainable import failure_message, failure_traceback, run_name, trial_config

CONFIG = Config().with_values({"run.name": "demo", "train.num_workers": 2})


def test_a_trial_is_a_run_of_its_own_with_its_values() -> None:
    config = trial_config(CONFIG, 3, {"train.learning_rate": 0.01})
    assert config.run.name == run_name(CONFIG, 3) == "demo-0003"
    assert (config.train.learning_rate, config.train.num_workers) == (0.01, 2)


def test_a_trial_may_have_fewer_workers_than_a_training() -> None:
    config = CONFIG.with_values({"sweep.num_workers": 1})
    assert trial_config(config, 1, {}).train.num_workers == 1


def test_values_that_do_not_fit_each_other_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"image_size must be at least 256 pixels"):
        trial_config(CONFIG, 1, {"network.num_layers": 9})


def raise_in_function() -> None:
    raise ValueError("out of memory\nallocator details.")


def test_an_error_of_segfleet_has_its_type_and_stack_trace() -> None:
    with pytest.raises(ValueError, match="out of memory") as caught:
        raise_in_function()
    assert failure_message(caught.value) == "ValueError: out of memory"
    assert "in raise_in_function" in str(failure_traceback(caught.value))


def test_an_error_of_the_user_is_a_sentence_without_stack_trace() -> None:
    error = DataError("a.png is damaged: replace it.")
    assert failure_message(error) == "a.png is damaged: replace it."
    assert failure_traceback(error) is None
