"""Deployments that fail: errors of Ray Serve, and services that need too many resources."""

from typing import Any

import pytest

from contract.config import Serve
from contract.errors import ClusterError
from inference.serving.deployment import ReplicaSpec
from inference.serving.service import start_service
from tests.inference.conftest import REQUEST_TIMEOUT_S


def test_a_failed_deployment_leaves_nothing_behind_unless_it_is_an_update(
    failed_deployments: Any,
) -> None:
    assert not failed_deployments.was_running
    assert "did not start in time: 1 replicas of 64 CPUs" in failed_deployments.first_error
    assert "shutdown" not in failed_deployments.first_error
    assert not failed_deployments.is_left_behind
    assert "did not start in time" in failed_deployments.update_error
    assert failed_deployments.update_error.endswith("or end it with `segfleet shutdown`.")


@pytest.mark.parametrize(
    ("name", "value"), [("port", 9), ("request_timeout_s", 9.0), ("request_timeout_s", 0.1)]
)
def test_other_http_options_than_those_of_the_running_serve_are_rejected(
    service: Any, name: str, value: float
) -> None:
    port = int(service.url.rpartition(":")[2])
    settings = Serve.model_validate({"model": "bright@production", "port": port, name: value})
    running = {"port": port, "request_timeout_s": REQUEST_TIMEOUT_S}[name]
    message = rf"already runs with serve\.{name} = {running}, not {value}:"
    with pytest.raises(ClusterError, match=message):
        start_service(ReplicaSpec(settings, "nowhere", None, is_local=False), timeout_s=1.0)
