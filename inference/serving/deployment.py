"""The service on Ray Serve: replicas that segment, and a ledger that adds up what they count."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, LoggingConfig
from starlette.types import ASGIApp

from cluster.connection import ray_level
from contract.config import Serve
from contract.errors import ClusterError
from contract.imaging.encode import silence_opencv
from inference.predictor import SliceSegmentation
from inference.serving import app
from inference.serving.model_manager import LoadedModel, ModelManager
from inference.serving.replica_server import (
    KEEP_ALIVE_S,
    ReplicaServer,
    own_listener,
    shared_listener,
)
from inference.serving.request_parsing import ConcurrencyLimiter
from inference.serving.schemas import Latency, ReplicaInfo, ServiceStatus
from inference.serving.stats import RequestStats

APPLICATION = "segfleet"
_HEARTBEAT_S = 1.0
_STALE_AFTER_S = 10.0
# At a replica: one batch computed while the next is decoded.
_BATCHES_IN_WORK = 2
# How many more requests than a replica takes Serve hands to it, and how much longer Serve's proxy
# waits than a replica: so that it is the replica that refuses, with a sentence.
_MORE, _LONGER_S = 64, 1.0
_POLL_S = 0.2
# Nothing here holds the event loop, so requests need no second one in each replica.
_ONE_LOOP = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplicaSpec:
    """All that a replica needs to know."""

    settings: Serve
    storage_root: str
    key_digest: str | None
    """SHA-256, in hex, of the API key, so that the cluster never holds the key itself."""
    private: bool
    """Whether the cluster is one machine of our own: its replicas listen at the service's address
    themselves, and there is no proxy."""


@dataclass(frozen=True)
class Heartbeat:
    """What a replica tells the ledger."""

    replica: str
    facts: ReplicaInfo
    tally: RequestStats


@final
class StatsAggregator:
    """Adds up what the replicas count; those that are gone stay counted."""

    def __init__(self, reference: str) -> None:
        """reference: what the service follows."""
        self._reference = reference
        self._heartbeats: dict[str, tuple[float, Heartbeat]] = {}

    async def record_heartbeat(self, beat: Heartbeat) -> None:
        """Take a replica's counts since it started."""
        self._heartbeats[beat.replica] = time.monotonic(), beat

    async def status(self) -> ServiceStatus:
        """The sums, and the replicas heard of lately."""
        total = sum((beat.tally for _, beat in self._heartbeats.values()), RequestStats())
        now = time.monotonic()
        return ServiceStatus(
            reference=self._reference,
            replicas=[
                beat.facts for at, beat in self._heartbeats.values() if now - at < _STALE_AFTER_S
            ],
            requests=total.requests,
            rejected=total.rejected,
            errors=total.errors,
            latency_s=_latency(total),
        )


@serve.ingress()
class Replica:
    """One process that decodes, segments and answers."""

    async def __init__(self, plan: ReplicaSpec, ledger: DeploymentHandle) -> None:
        # Serve ends a replica by `__del__`, even one whose start has failed.
        self._door: ReplicaServer | None = None
        silence_opencv()
        self.settings = plan.settings
        self.key_digest = plan.key_digest
        self.stats = RequestStats()
        self.limiter = ConcurrencyLimiter(
            _BATCHES_IN_WORK * plan.settings.max_batch_size, plan.settings.max_queued_requests
        )
        self._ledger = ledger
        self._host = ModelManager(
            plan.settings.model,
            plan.storage_root,
            threads=max(1, int(plan.settings.cpus_per_replica)),
            gpu=plan.settings.gpus_per_replica > 0,
        )
        # One thread: the engine takes one batch at a time.
        self._engine = ThreadPoolExecutor(1, thread_name_prefix="engine")
        await asyncio.to_thread(self._host.load)
        together: Any = self.predict_batch
        together.set_max_batch_size(plan.settings.max_batch_size)
        together.set_batch_wait_timeout_s(plan.settings.batch_wait_timeout_s)
        self._app = app.build_app(self)
        open_listener = shared_listener if plan.private else own_listener
        listener = open_listener(plan.settings)
        if listener:
            self._door = ReplicaServer(self._app, listener, plan.settings)
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._beat())]

    async def __del__(self) -> None:
        # What came through Serve's proxy is answered by now.
        if self._door:
            await self._door.close()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app

    @property
    def loaded_model(self) -> LoadedModel:
        """What answers now."""
        return self._host.current

    async def segment(self, image: np.ndarray) -> tuple[np.ndarray, LoadedModel]:
        """The mask [H, W] of a slice [H, W, C], and what made it; batched with other requests."""
        return await self.predict_batch(image)

    async def status(self) -> ServiceStatus:
        """How the service does, all replicas together."""
        await self._tell()
        return await self._ledger.status.remote()

    def check_health(self) -> None:
        """Have Serve replace this replica where it no longer answers or follows the registry."""
        if self._door and self._door.closed:
            raise RuntimeError("a replica's own HTTP server has ended")
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a replica's {task.get_coro()} has ended")

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.0)
    async def predict_batch(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, LoadedModel]]:
        hosted = self._host.current
        found: list[SliceSegmentation] = await asyncio.get_running_loop().run_in_executor(
            self._engine, hosted.predictor.predict, images
        )
        return [(segmentation.mask, hosted) for segmentation in found]

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.settings.registry_poll_interval_s)
            await asyncio.to_thread(self._host.refresh)

    async def _beat(self) -> None:
        while True:
            await self._tell()
            await asyncio.sleep(_HEARTBEAT_S)

    async def _tell(self) -> None:
        facts = ReplicaInfo(
            version=self._host.current.version.version,
            load_error=self._host.load_error,
            address=self._door.address if self._door else None,
        )
        name = serve.get_replica_context().replica_tag
        try:
            await self._ledger.hear.remote(Heartbeat(name, facts, self.stats.copy()))
        except RayError as error:
            log.warning("the ledger does not answer: %s", error)


def _latency(tally: RequestStats) -> Latency | None:
    p50, p90, p99 = (tally.percentile(share) for share in (0.5, 0.9, 0.99))
    if p50 is None or p90 is None or p99 is None:
        return None
    return Latency(p50=p50, p90=p90, p99=p99)


def build_application(plan: ReplicaSpec) -> serve.Application:
    """The Serve application of a plan."""
    settings = plan.settings
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    handed = _BATCHES_IN_WORK * settings.max_batch_size + settings.max_queued_requests + _MORE
    replica: Any = serve.deployment(
        Replica,
        num_replicas=settings.num_replicas,
        ray_actor_options={
            "num_cpus": settings.cpus_per_replica,
            "num_gpus": settings.gpus_per_replica,
        },
        max_ongoing_requests=handed,
        max_queued_requests=handed,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=settings.request_timeout_s,
        logging_config=quiet,
    )
    ledger: Any = serve.deployment(
        StatsAggregator, num_replicas=1, ray_actor_options={"num_cpus": 0}, logging_config=quiet
    )
    return replica.bind(plan, ledger.bind(settings.model))


def start_service(plan: ReplicaSpec, timeout_s: float) -> None:
    """Run the service on the connected cluster; returns when it answers.

    timeout_s: how long its replicas may take to be placed and to load the model. Raises
    ClusterError where they cannot, and leaves nothing behind unless there was a service before;
    also where Serve already listens in another way.
    """
    settings = plan.settings
    logging.getLogger("ray.serve").setLevel(ray_level())
    _start_serve(plan)
    if not plan.private:
        _check_listening(settings)
    replaces = _deployed()
    target = serve.RunTarget(build_application(plan), name=APPLICATION, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)
    try:
        _wait(settings, time.monotonic() + timeout_s)
    except ClusterError as error:
        if replaces:
            raise ClusterError(
                f"{error} Ray Serve goes on trying in place of the service that was there: deploy "
                "that again, or end it with `python -m inference undeploy`."
            ) from error
        # Serve goes on by itself; a waiting replica ends after the graceful shutdown time.
        serve.delete(APPLICATION, _blocking=False)
        while _deployed():
            time.sleep(_POLL_S)
        raise


def _start_serve(plan: ReplicaSpec) -> None:
    """Start Serve, with its HTTP server unless the cluster is private, if it is not there yet."""
    settings = plan.settings
    try:
        serve.start(
            proxy_location=ProxyLocation.Disabled if plan.private else ProxyLocation.HeadOnly,
            http_options=_http_options(settings),
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
            controller_options={"runtime_env": {"env_vars": _ONE_LOOP}},
        )
    except (TimeoutError, RayError) as error:
        raise ClusterError(
            f"Ray Serve does not start ({_last_line(str(error))}): see whether "
            f"{settings.host}:{settings.port} is free and the head node idle."
        ) from error


def _http_options(settings: Serve) -> HTTPOptions:
    """How Serve's proxy listens."""
    return HTTPOptions(
        host=settings.host,
        port=settings.port,
        request_timeout_s=settings.request_timeout_s + _LONGER_S,
        keep_alive_timeout_s=KEEP_ALIVE_S,
    )


def stop_service() -> bool:
    """End the service on the connected cluster; False where there was none."""
    there = _deployed()
    # Ray raises where Serve has never been started.
    if there:
        serve.delete(APPLICATION)
    return there


def _deployed() -> bool:
    """Whether there is a service, and it is not being ended already."""
    app = serve.status().applications.get(APPLICATION)
    return app is not None and app.status != ApplicationStatus.DELETING


def _check_listening(settings: Serve) -> None:
    """Refuse a Serve that was there before and listens in another way: that cannot be changed."""
    # Serve's own client: it alone knows how Serve listens.
    client: Any = _get_global_client()
    options: Any = client.http_config
    asked = _http_options(settings)
    for name in ("host", "port", "request_timeout_s"):
        running, wanted = getattr(options, name), getattr(asked, name)
        if running != wanted:
            if name == "request_timeout_s" and running:
                running = round(running - _LONGER_S, 6)
            raise ClusterError(
                f"Ray Serve of this cluster runs with serve.{name} = {running} already, not "
                f"{getattr(settings, name)}: set it to that, or run `serve shutdown` on the "
                "cluster first."
            )


def _wait(settings: Serve, deadline: float) -> None:
    while True:
        app = serve.status().applications[APPLICATION]
        if app.status == ApplicationStatus.RUNNING:
            return
        messages = [one.message for one in app.deployments.values() if one.message]
        reason = " ".join([app.message, *messages]).strip()
        if app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise ClusterError(f"the service cannot be started: {_last_line(reason)}")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the service did not start in time: {settings.num_replicas} replicas of "
                f"{settings.cpus_per_replica:g} CPUs and {settings.gpus_per_replica:g} GPUs are "
                f"asked for. {_last_line(reason)}"
            )
        time.sleep(_POLL_S)


def _last_line(reason: str) -> str:
    """Of a stack trace, the line that says what happened."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[-1] if lines else "Ray gives no reason."
