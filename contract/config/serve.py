"""The section [serve]."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from contract.config.section import Section


class Serve(Section):
    """The service that turns slices into masks over HTTP."""

    model: str = "demo@production"
    """The registered model to serve: NAME@STAGE or NAME@VERSION."""
    host: str = "127.0.0.1"
    """Address the service listens on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port the service listens on."""
    num_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Replicas of the model; the minimum number if max_replicas is set."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Maximum number of replicas; absent: their number is fixed. Ray Serve adds and removes
    replicas, but not on a local cluster."""
    target_ongoing_requests: Annotated[float, Field(gt=0.0)] = 8.0
    """Requests in flight per replica that autoscaling aims at."""
    cpus_per_replica: Annotated[float, Field(gt=0.0)] = 1.0
    """CPUs reserved for a replica."""
    gpus_per_replica: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs reserved for a replica."""
    max_batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    """Maximum number of requests in one call of the network."""
    batch_wait_timeout_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Seconds that a request may wait for others to join its batch."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 64
    """Requests of at most max_bytes each that may wait in a replica before new ones are rejected
    with 503."""
    max_bytes: Annotated[int, Field(ge=1024)] = 20_000_000
    """Largest request body in bytes."""
    max_pixels: Annotated[int, Field(ge=1024)] = 16_777_216
    """Largest image in pixels, read from its header before decoding."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """Name of the environment variable that contains the API key, which clients must send as
    "Authorization: Bearer KEY"; absent: no key is required."""
    request_timeout_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Seconds after which a request without a response ends with 408."""
    registry_poll_interval_s: Annotated[float, Field(gt=0.0)] = 5.0
    """Seconds between two polls of the registry for a promotion."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.num_replicas:
            raise ValueError(
                f"serve.max_replicas = {self.max_replicas} must not be below serve.num_replicas = "
                f"{self.num_replicas}"
            )
        return self
