"""Starting and ending the service on the connected Ray cluster."""

import logging
import time

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import ApplicationStatus, LoggingConfig

from cluster.connection import ray_level
from cluster.ray_internals import request_deletion, serve_http_options
from contract.config import Serve
from contract.errors import ClusterError, last_line
from inference.serving.deployment import ReplicaSpec, build_application
from inference.serving.replica_server import KEEP_ALIVE_S

APPLICATION = "segfleet"
# How much longer Serve's proxy waits than a replica, so that the replica responds with a sentence.
_EXTRA_TIMEOUT_S = 1.0
_POLL_INTERVAL_S = 0.2
# Nothing here blocks the event loop, so requests need no second loop in each replica.
_CONTROLLER_ENV = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}


def start_service(spec: ReplicaSpec, timeout_s: float) -> None:
    """Start the service on the connected cluster; returns when it responds.

    Args:
        spec: The configuration of the replicas.
        timeout_s: How long the replicas may take to be placed and to load the model.

    Raises:
        ClusterError: The replicas did not start in time, or Serve already runs with other
            HTTP options. Nothing is left behind unless there was a service before.
    """
    settings = spec.settings
    logging.getLogger("ray.serve").setLevel(ray_level())
    _start_serve(spec)
    if not spec.is_local:
        _check_http_options(settings)
    is_update = is_deployed()
    target = serve.RunTarget(build_application(spec), name=APPLICATION, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)
    try:
        _wait_until_running(settings, time.monotonic() + timeout_s)
    except ClusterError as error:
        if is_update:
            raise ClusterError(
                f"{error} Ray Serve keeps trying to replace the previous service: deploy that one "
                "again, or end it with `segfleet shutdown`."
            ) from error
        request_deletion(APPLICATION)
        while is_deployed():
            time.sleep(_POLL_INTERVAL_S)
        raise


def stop_service() -> bool:
    """End the service on the connected cluster; returns False if there was none."""
    deployed = is_deployed()
    # Ray raises an error if Serve was never started.
    if deployed:
        serve.delete(APPLICATION)
    return deployed


def is_deployed() -> bool:
    """Whether there is a service that is not being deleted already."""
    app = serve.status().applications.get(APPLICATION)
    return app is not None and app.status != ApplicationStatus.DELETING


def _start_serve(spec: ReplicaSpec) -> None:
    """Start Serve if it is not running, with its proxy unless the cluster is local."""
    settings = spec.settings
    try:
        serve.start(
            proxy_location=ProxyLocation.Disabled if spec.is_local else ProxyLocation.HeadOnly,
            http_options=http_options(settings),
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
            controller_options={"runtime_env": {"env_vars": _CONTROLLER_ENV}},
        )
    except (TimeoutError, RayError) as error:
        raise ClusterError(
            f"Ray Serve does not start ({last_line(error)}): check whether "
            f"{settings.host}:{settings.port} is free and the head node is not overloaded."
        ) from error


def http_options(settings: Serve) -> HTTPOptions:
    """The HTTP options of Serve's proxy."""
    return HTTPOptions(
        host=settings.host,
        port=settings.port,
        request_timeout_s=settings.request_timeout_s + _EXTRA_TIMEOUT_S,
        keep_alive_timeout_s=KEEP_ALIVE_S,
    )


def _check_http_options(settings: Serve) -> None:
    """Raise ClusterError if the running Serve has other HTTP options, which cannot be changed."""
    running, requested = serve_http_options(), http_options(settings)
    for name in ("host", "port", "request_timeout_s"):
        current = getattr(running, name)
        if current != getattr(requested, name):
            if name == "request_timeout_s" and current:
                current = round(current - _EXTRA_TIMEOUT_S, 6)
            raise ClusterError(
                f"Ray Serve on this cluster already runs with serve.{name} = {current}, not "
                f"{getattr(settings, name)}: set it to that value, or run `serve shutdown` on the "
                "cluster first."
            )


def _wait_until_running(settings: Serve, deadline: float) -> None:
    while True:
        app = serve.status().applications[APPLICATION]
        if app.status == ApplicationStatus.RUNNING:
            return
        messages = [details.message for details in app.deployments.values() if details.message]
        reason = _reason(" ".join([app.message, *messages]))
        if app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise ClusterError(f"the service cannot be started: {reason}")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the service did not start in time: {settings.num_replicas} replicas of "
                f"{settings.cpus_per_replica:g} CPUs and {settings.gpus_per_replica:g} GPUs are "
                f"requested. {reason}"
            )
        time.sleep(_POLL_INTERVAL_S)


def _reason(message: str) -> str:
    return f"{last_line(message)}." if message.strip() else "Ray gives no reason."
