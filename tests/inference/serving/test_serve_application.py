"""The config file for Ray Serve's own commands, and the application that it names."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from contract.config import Config
from contract.errors import ConfigError
from inference.serving.serve_application import ServiceArguments, render_serve_config

ROOT = Path(__file__).parents[3]


def build_from(text: str) -> Application:
    """What Ray Serve does with a config file: import the builder and call it with the arguments."""
    schema = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = schema.applications
    module, _, name = application.import_path.partition(":")
    build = getattr(import_module(module), name)
    return build(ServiceArguments.model_validate(application.args))


def test_a_written_config_builds_the_service() -> None:
    config = Config().with_values(
        {
            "storage.root": "s3://bucket/segfleet",
            "serve.model": "pancreas@production",
            "serve.port": 8123,
            "serve.num_replicas": 2,
            "serve.max_replicas": 5,
            "serve.target_ongoing_requests": 3.0,
        }
    )
    text = render_serve_config(config)
    assert yaml.safe_load(text)["http_options"]["port"] == 8123
    deployment = build_from(text)._bound_deployment
    spec: Any = deployment.init_args[0]
    assert (spec.settings, spec.storage_root) == (config.serve, "s3://bucket/segfleet")
    scaling = deployment._deployment_config.autoscaling_config
    assert scaling is not None
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 5)
    assert scaling.target_ongoing_requests == 3.0


def test_the_api_key_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config().with_values({"serve.api_key_env": "A_KEY"})
    monkeypatch.setenv("A_KEY", "the secret itself")
    text = render_serve_config(config)
    assert "the secret itself" not in text
    assert "environment variable A_KEY" in text
    spec: Any = build_from(text)._bound_deployment.init_args[0]
    assert spec.key_digest
    monkeypatch.delenv("A_KEY")
    with pytest.raises(
        ConfigError, match=r"serve\.api_key_env names the environment variable A_KEY"
    ):
        build_from(text)


def test_wrong_arguments_are_rejected() -> None:
    with pytest.raises(ValueError, match="storage_rot"):
        ServiceArguments.model_validate({"storage_rot": "x"})
