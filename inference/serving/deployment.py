"""The service on Ray Serve: replicas that segment slices, and an aggregator of their statistics."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from ray import serve
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from contract.config import Serve
from contract.imaging.decode import silence_opencv
from inference.predictor import Segmentation
from inference.serving.app import build_app
from inference.serving.model_manager import LoadedModel, ModelManager
from inference.serving.prometheus import render_metrics
from inference.serving.replica_server import (
    ReplicaServer,
    create_own_listener,
    create_shared_listener,
)
from inference.serving.request_limits import ConcurrencyLimiter
from inference.serving.schemas import ReplicaInfo, ServiceStatus
from inference.serving.stats import RequestStats
from inference.serving.stats_aggregator import Heartbeat, StatsAggregator

_HEARTBEAT_INTERVAL_S = 1.0
# Of one replica: one batch is predicted while the next is decoded.
_BATCHES_IN_FLIGHT = 2
# Serve passes this many more requests to a replica than the replica accepts, so that the replica
# rejects them with a sentence, and clients that send slowly leave room for others.
_EXTRA_REQUESTS = 4096

log = logging.getLogger(__name__)


class SliceRequest(NamedTuple):
    """What a request asks for."""

    image: np.ndarray
    """The slice [H, W, C]."""
    probability: bool
    """Whether to return the probabilities too."""


@dataclass(frozen=True)
class ReplicaSpec:
    """The configuration of a replica."""

    settings: Serve
    storage_root: str
    key_digest: str | None
    """SHA-256, in hex, of the API key, so that the cluster never has the key itself."""
    is_local: bool
    """Whether the cluster is a local one: its replicas listen on the address of the service
    themselves, and there is no proxy."""


@serve.ingress()
class Replica:
    """One process that decodes and segments slices and responds to requests."""

    async def __init__(self, spec: ReplicaSpec, stats_aggregator: DeploymentHandle) -> None:
        # Serve ends a replica with `__del__`, even one whose start has failed.
        self._server: ReplicaServer | None = None
        silence_opencv()
        settings = self.settings = spec.settings
        self.key_digest = spec.key_digest
        self.stats = RequestStats()
        max_slices = _BATCHES_IN_FLIGHT * settings.max_batch_size
        self.limiter = ConcurrencyLimiter(
            max_slices, settings.max_queued_requests, settings.max_bytes
        )
        self._stats_aggregator = stats_aggregator
        self._model_manager = ModelManager(
            settings.model,
            spec.storage_root,
            threads=max(1, int(settings.cpus_per_replica)),
            gpu=settings.gpus_per_replica > 0,
        )
        # One thread: the engine computes one batch at a time.
        self._engine = ThreadPoolExecutor(1, thread_name_prefix="engine")
        await asyncio.to_thread(self._model_manager.load)
        predict_batch: Any = self.predict_batch
        predict_batch.set_max_batch_size(settings.max_batch_size)
        predict_batch.set_batch_wait_timeout_s(settings.batch_wait_timeout_s)
        self._app = build_app(self)
        create_listener = create_shared_listener if spec.is_local else create_own_listener
        listener = create_listener(settings)
        if listener:
            self._server = ReplicaServer(self._app, listener, settings)
        self._tasks = [
            asyncio.create_task(self._poll_registry()),
            asyncio.create_task(self._send_heartbeats()),
        ]

    async def __del__(self) -> None:
        # Requests from Serve's proxy have been answered by now.
        if self._server:
            await self._server.close()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app

    @property
    def loaded_model(self) -> LoadedModel:
        """The model that is served."""
        return self._model_manager.current

    @property
    def stack_size(self) -> int:
        """The slices that the model is given for one mask: a slice and its neighbours."""
        return self.loaded_model.predictor.manifest.stack_size

    async def segment(
        self, image: np.ndarray, probability: bool
    ) -> tuple[Segmentation, LoadedModel]:
        """The segmentation of a slice [H, W, C] and its model; batched with other requests."""
        return await self.predict_batch(SliceRequest(image, probability))

    async def status(self) -> ServiceStatus:
        """The status of the service, over all replicas."""
        await self._send_heartbeat()
        return await self._stats_aggregator.status.remote()

    async def metrics(self) -> bytes:
        """The metrics of the service, over all replicas, for Prometheus."""
        await self._send_heartbeat()
        return render_metrics(await self._stats_aggregator.metrics.remote())

    def check_health(self) -> None:
        """Make Serve replace this replica if its server or a background task has ended."""
        if self._server and self._server.is_closed:
            raise RuntimeError("a replica's own HTTP server has ended")
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a replica's {task.get_coro()} has ended")

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.0)
    async def predict_batch(
        self, requests: list[SliceRequest]
    ) -> list[tuple[Segmentation, LoadedModel]]:
        """Predict the slices of several requests together."""
        model = self._model_manager.current
        images = [request.image for request in requests]
        probability = any(request.probability for request in requests)
        predict = partial(model.predictor.predict_batch, images, probability=probability)
        segmentations = await asyncio.get_running_loop().run_in_executor(self._engine, predict)
        return [
            (each if request.probability else replace(each, probability=None), model)
            for each, request in zip(segmentations, requests, strict=True)
        ]

    async def _poll_registry(self) -> None:
        while True:
            await asyncio.sleep(self.settings.registry_poll_interval_s)
            await asyncio.to_thread(self._model_manager.refresh)

    async def _send_heartbeats(self) -> None:
        while True:
            await self._send_heartbeat()
            await asyncio.sleep(_HEARTBEAT_INTERVAL_S)

    async def _send_heartbeat(self) -> None:
        info = ReplicaInfo(
            version=self._model_manager.current.version.version,
            load_error=self._model_manager.load_error,
            url=self._server.url if self._server else None,
        )
        name = serve.get_replica_context().replica_tag
        try:
            await self._stats_aggregator.record_heartbeat.remote(
                Heartbeat(name, info, self.stats.copy(), self.limiter.in_flight)
            )
        except RayError as error:
            log.warning("the stats aggregator does not respond: %s", error)


def _scaling(spec: ReplicaSpec) -> dict[str, Any]:
    """The number of replicas, or how Serve scales it with the requests that pass its proxy."""
    settings = spec.settings
    # Requests to a local cluster do not pass through Serve, which therefore cannot count them.
    if settings.max_replicas is None or spec.is_local:
        return {"num_replicas": settings.num_replicas}
    return {
        "autoscaling_config": {
            "min_replicas": settings.num_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": settings.target_ongoing_requests,
        }
    }


def build_application(spec: ReplicaSpec) -> serve.Application:
    """The Ray Serve application of a replica specification."""
    settings = spec.settings
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    max_requests = (
        _BATCHES_IN_FLIGHT * settings.max_batch_size
        + settings.max_queued_requests
        + _EXTRA_REQUESTS
    )
    replica: Any = serve.deployment(
        Replica,
        **_scaling(spec),
        ray_actor_options={
            "num_cpus": settings.cpus_per_replica,
            "num_gpus": settings.gpus_per_replica,
        },
        max_ongoing_requests=max_requests,
        max_queued_requests=max_requests,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=settings.request_timeout_s,
        logging_config=quiet,
    )
    stats_aggregator: Any = serve.deployment(
        StatsAggregator, num_replicas=1, ray_actor_options={"num_cpus": 0}, logging_config=quiet
    )
    return replica.bind(spec, stats_aggregator.bind(settings.model))
