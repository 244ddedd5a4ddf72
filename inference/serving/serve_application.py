"""The service as an application for Ray Serve's own commands, `serve run` and `serve deploy`.

import_path: inference.serving.serve_application:build
"""

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.schema import ServeDeploySchema

from cluster.connection import WORKER_ENV
from contract.config import Config, Serve
from inference.serving.client import read_api_key
from inference.serving.deployment import ReplicaSpec, build_application
from inference.serving.request_parsing import key_digest_of
from inference.serving.service import APPLICATION, http_options

IMPORT_PATH = "inference.serving.serve_application:build"

_HEADER = """\
# The service of {model}, for Ray Serve on a cluster whose nodes have segfleet installed:
#   serve deploy FILE      start or update it (RAY_DASHBOARD_ADDRESS=http://HEAD:8265)
#   serve status           its replicas
# Every node must reach storage_root.{key}
"""
_KEY_NOTE = """
# Set the environment variable {variable} on the head node, or in runtime_env.env_vars below: the
# key of the clients, which is not written to this file."""


class ServiceArguments(BaseModel):
    """The arguments of the application in a Serve config file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    storage_root: str
    """storage.root: folder or s3:// address with the registry, as seen from the nodes."""
    serve: Serve = Serve()
    """The settings [serve]."""


def build(arguments: ServiceArguments) -> serve.Application:
    """The application of a service; called by Ray Serve with the args of a config file.

    Raises ConfigError if serve.api_key_env names an environment variable that is not set.
    """
    key = read_api_key(arguments.serve)
    digest = key_digest_of(key) if key else None
    return build_application(
        ReplicaSpec(arguments.serve, arguments.storage_root, digest, is_local=False)
    )


def serve_config(config: Config) -> dict[str, Any]:
    """The content of a Serve config file (ray.serve.schema.ServeDeploySchema) as plain values."""
    options = http_options(config.serve)
    content = {
        "proxy_location": "HeadOnly",
        "http_options": {
            "host": options.host,
            "port": options.port,
            "request_timeout_s": options.request_timeout_s,
            "keep_alive_timeout_s": options.keep_alive_timeout_s,
        },
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": {
                    "storage_root": config.storage.root,
                    "serve": config.serve.model_dump(mode="json", exclude_defaults=True),
                },
                "runtime_env": {"env_vars": dict(WORKER_ENV)},
            }
        ],
    }
    ServeDeploySchema.model_validate(content)
    return content


def render_serve_config(config: Config) -> str:
    """A Serve config file with comments that say how to use it."""
    variable = config.serve.api_key_env
    key = _KEY_NOTE.format(variable=variable) if variable else ""
    header = _HEADER.format(model=config.serve.model, key=key)
    return header + yaml.safe_dump(serve_config(config), sort_keys=False)
