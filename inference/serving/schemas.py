"""What the service answers, as JSON; /openapi.json and the docs page are made of these."""

from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )


class BoundingBox(_Answer):
    """The smallest upright rectangle around the foreground, in pixels from the upper left."""

    x: int
    y: int
    width: int
    height: int


class RunLengths(_Answer):
    """A mask as COCO's uncompressed run-length code (pycocotools reads it)."""

    size: tuple[int, int]
    """Height and width."""
    counts: list[int]
    """Lengths of alternating runs of background and foreground, background first, down the
    columns from left to right."""


class SegmentResponse(_Answer):
    """What was found in a slice."""

    model: str
    """Name of the model in the registry."""
    version: int
    """Its version, which answered this request."""
    width: int
    """Of the slice, in pixels."""
    height: int
    """Of the slice, in pixels."""
    area: int
    """Foreground in pixels."""
    bounding_box: BoundingBox | None
    """Around all foreground; absent where there is none."""
    mask: RunLengths
    """The foreground."""
    seconds: float
    """From the whole request to the mask, in the service."""

    @classmethod
    def from_mask(cls, mask: np.ndarray, model: str, version: int, seconds: float) -> Self:
        """The answer for a mask [H, W], foreground where it is not 0."""
        return cls(
            model=model,
            version=version,
            width=mask.shape[1],
            height=mask.shape[0],
            area=int(np.count_nonzero(mask)),
            bounding_box=bounding_box(mask),
            mask=run_lengths(mask),
            seconds=round(seconds, 6),
        )


class ErrorResponse(_Answer):
    """What is wrong with a request, in one sentence."""

    error: str


class Health(_Answer):
    """That the service answers."""

    status: str = "ok"


class ModelInfo(_Answer):
    """What is hosted."""

    model: str
    """Name of the model in the registry."""
    version: int
    """Its version."""
    reference: str
    """What the service follows: NAME@STAGE or NAME@VERSION."""
    run: str
    """The training run the bundle comes from."""
    created: str
    """When the bundle was made, ISO 8601 in UTC."""
    fingerprint: str
    """Of the settings it was trained with."""
    commit: str | None
    """Commit of segfleet it was trained by."""
    image_size: int
    """Side of the square the network works at, in pixels."""
    image_channels: int
    """1: grey; 3: RGB."""
    threshold: float
    """A pixel is foreground where its probability is above."""
    metrics: dict[str, float]
    """The scores of its checkpoint."""
    engine: str
    """What computes: OpenVINO or TensorFlow."""


class ReplicaInfo(_Answer):
    """One process that answers requests."""

    version: int
    """The version it answers with."""
    load_error: str | None
    """Why it does not answer with what the registry says, if it does not."""
    address: str | None = None
    """Where it answers by itself, without Ray Serve's proxy, as its own node or, where the service
    listens to all, as others see it; absent where it does not."""


class Latency(_Answer):
    """Seconds from a request's arrival at a replica to its answer, over all requests counted."""

    p50: float
    p90: float
    p99: float


class ServiceStatus(_Answer):
    """How the service does."""

    reference: str
    """What the service follows: NAME@STAGE or NAME@VERSION."""
    replicas: list[ReplicaInfo]
    """The replicas heard of in the last seconds."""
    requests: int
    """Requests for segmentation since the deployment."""
    rejected: int
    """Of these, refused for what was wrong with them (4xx), or as the service was too busy (408,
    503)."""
    errors: int
    """Of these, failed through a fault of the service (any other 5xx)."""
    latency_s: Latency | None
    """Of the requests that were answered; absent where there are none."""


def bounding_box(mask: np.ndarray) -> BoundingBox | None:
    """The box around what is not 0 in a mask [H, W]."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return BoundingBox(
        x=int(columns[0]),
        y=int(rows[0]),
        width=int(columns[-1] - columns[0]) + 1,
        height=int(rows[-1] - rows[0]) + 1,
    )


def run_lengths(mask: np.ndarray) -> RunLengths:
    """The runs of a mask [H, W]."""
    flat = (mask != 0).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], edges, [flat.size])))
    counts = [0, *lengths.tolist()] if flat[0] else lengths.tolist()
    return RunLengths(size=(mask.shape[0], mask.shape[1]), counts=counts)
