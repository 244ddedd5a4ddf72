"""The variables of TensorFlow: set for a process and its workers, unless the user has set them."""

import os

import pytest

from cluster.connection import job_variables
from contract.cli.log_setup import configure_libraries
from contract.tensorflow_variables import TENSORFLOW_VARIABLES


def test_commands_set_the_variables_that_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TENSORFLOW_VARIABLES:
        monkeypatch.delenv(name)
    configure_libraries()
    assert {name: os.environ[name] for name in TENSORFLOW_VARIABLES} == TENSORFLOW_VARIABLES


def test_a_user_can_turn_onednn_off_for_the_workers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    configure_libraries()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert job_variables()["TF_ENABLE_ONEDNN_OPTS"] == "0"
