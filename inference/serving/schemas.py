"""The JSON responses of the service; /openapi.json and the docs page are generated from them."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from contract.imaging.post_processing import MaskScope
from contract.imaging.segmentation_class import SegmentationClass


class _Response(BaseModel):
    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )


class BoundingBox(_Response):
    """The smallest upright rectangle around a class, in pixels from the upper left."""

    x: int
    y: int
    width: int
    height: int


class RunLengths(_Response):
    """A mask in COCO's uncompressed run-length encoding (pycocotools reads it)."""

    size: tuple[int, int]
    """Height and width."""
    counts: list[int]
    """Lengths of alternating runs of background and foreground, background first, down the
    columns from left to right."""


class ClassInfo(_Response):
    """A class of the model."""

    name: str
    """Its name."""
    color: str
    """The color that shows it, such as #ff8000."""

    @classmethod
    def from_class(cls, segmentation_class: SegmentationClass) -> Self:
        """The response for a class of a bundle."""
        color = f"#{bytes(segmentation_class.color).hex()}"
        return cls(name=segmentation_class.name, color=color)


class ClassSegmentation(ClassInfo):
    """The pixels of one class in a slice."""

    area: int
    """In pixels."""
    bounding_box: BoundingBox | None
    """Around all pixels of the class; null without any."""
    mask: RunLengths
    """The pixels of the class."""


class SegmentResponse(_Response):
    """The segmentation of a slice."""

    model: str
    """Name of the model in the registry."""
    version: int
    """The version that processed this request."""
    width: int
    """Of the slice, in pixels."""
    height: int
    """Of the slice, in pixels."""
    classes: list[ClassSegmentation]
    """The classes of the model, in the order of their indices from 1."""
    seconds: float
    """From the complete request to the mask, in the service."""

    @classmethod
    def from_mask(
        cls,
        mask: np.ndarray,
        classes: Sequence[SegmentationClass],
        model: str,
        version: int,
        seconds: float,
    ) -> Self:
        """The response for a mask [H, W] of class indices."""
        return cls(
            model=model,
            version=version,
            width=mask.shape[1],
            height=mask.shape[0],
            classes=[
                _class_segmentation(each, mask == index)
                for index, each in enumerate(classes, start=1)
            ],
            seconds=round(seconds, 6),
        )


class ErrorResponse(_Response):
    """What is wrong with a request, in one sentence."""

    error: str


class Health(_Response):
    """The health of the service."""

    status: str = "ok"


class ModelInfo(_Response):
    """The model that the service serves."""

    model: str
    """Name of the model in the registry."""
    version: int
    """Its version."""
    reference: str
    """serve.model: NAME@STAGE or NAME@VERSION."""
    run: str
    """The training run of the bundle."""
    created: str
    """When the bundle was created, ISO 8601 in UTC."""
    fingerprint: str
    """Of the settings it was trained with."""
    commit: str | None
    """Commit of segfleet it was trained by."""
    image_size: tuple[int, int]
    """Height and width of the network's input, in pixels."""
    image_channels: int
    """1: grey; 3: RGB."""
    neighbours: int
    """n: a request is a TIFF of 2n + 1 slices that follow each other, the lowest first, or one
    slice, which is repeated; 0: it is one slice."""
    classes: list[ClassInfo]
    """The classes of its masks, in the order of their indices from 1."""
    threshold: float
    """With one class, a pixel is foreground where its probability is greater."""
    class_thresholds: dict[str, float]
    """predict.class_thresholds: of several classes, those that are not 0.5."""
    zooms: tuple[float, ...]
    """predict.zooms: at which zooms the slice is predicted (test-time augmentation)."""
    shifts: tuple[float, ...]
    """predict.shifts, as fractions of the sides of the slice."""
    flips: tuple[str, ...]
    """predict.flips: in which directions the slice is mirrored too."""
    largest_component: MaskScope
    """slice: masks have only the largest component of each class; patient: that is done in volumes
    only, and the masks of this service, which gets single slices, have all components."""
    fill_holes: MaskScope
    """slice: holes of each class are filled; patient: in volumes only, not by this service."""
    metrics: dict[str, float]
    """The scores of its checkpoint."""
    engine: str
    """The inference engine: OpenVINO or TensorFlow."""


class ReplicaInfo(_Response):
    """One process that responds to requests."""

    version: int
    """The version that it serves."""
    load_error: str | None
    """Why it does not serve the version that the registry names, if so."""
    url: str | None = None
    """The URL of the replica itself, without Ray Serve's proxy, as seen from its node or, if the
    service listens on all addresses, from other machines; null if it has none."""


class Latency(_Response):
    """Seconds from the arrival of a request at a replica to its response, over all requests."""

    p50: float
    p90: float
    p99: float


class ServiceStatus(_Response):
    """The status of the service."""

    reference: str
    """serve.model: NAME@STAGE or NAME@VERSION."""
    replicas: list[ReplicaInfo]
    """The replicas with a heartbeat in the last seconds."""
    requests: int
    """Requests for segmentation since the deployment."""
    rejected: int
    """Of these, rejected because they were invalid (4xx) or the service was too busy (408, 503)."""
    errors: int
    """Of these, failed because of an error of the service (any other 5xx)."""
    latency_s: Latency | None
    """Of the requests that succeeded; null without any."""


def _class_segmentation(
    segmentation_class: SegmentationClass, mask: np.ndarray
) -> ClassSegmentation:
    info = ClassInfo.from_class(segmentation_class)
    return ClassSegmentation(
        name=info.name,
        color=info.color,
        area=int(np.count_nonzero(mask)),
        bounding_box=bounding_box(mask),
        mask=run_lengths(mask),
    )


def bounding_box(mask: np.ndarray) -> BoundingBox | None:
    """The box around the foreground (not 0) of a mask [H, W]."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return BoundingBox(
        x=int(columns[0]),
        y=int(rows[0]),
        width=int(columns[-1] - columns[0]) + 1,
        height=int(rows[-1] - rows[0]) + 1,
    )


def decode_run_lengths(runs: RunLengths) -> np.ndarray:
    """The mask of the runs: uint8 [H, W] of 0 and 1."""
    height, width = runs.size
    values = np.arange(len(runs.counts), dtype=np.uint8) % 2
    return np.repeat(values, runs.counts).reshape(width, height).T


def run_lengths(mask: np.ndarray) -> RunLengths:
    """The runs of a mask [H, W]."""
    flat = (mask != 0).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], edges, [flat.size])))
    counts = [0, *lengths.tolist()] if flat[0] else lengths.tolist()
    return RunLengths(size=(mask.shape[0], mask.shape[1]), counts=counts)
