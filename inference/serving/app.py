"""The HTTP routes of the service, as an ASGI application.

The response to an invalid request is a 4xx with one sentence in JSON, {"error": …}.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract.config import Serve
from contract.imaging.encode import encode_mask, encode_probability, probability_suffix
from contract.imaging.segmentation_class import MaskFormat
from inference.predictor import Segmentation
from inference.serving.model_manager import LoadedModel
from inference.serving.prometheus import METRICS_CONTENT_TYPE
from inference.serving.request_limits import ConcurrencyLimiter, RequestError, time_limit
from inference.serving.request_parsing import (
    JSON,
    NPZ,
    PNG,
    create_key_check,
    decode_slice,
    negotiate_content_type,
    parse_mask_format,
    read_image,
)
from inference.serving.schemas import (
    ClassInfo,
    ErrorResponse,
    Health,
    ModelInfo,
    SegmentResponse,
    ServiceStatus,
)
from inference.serving.stats import CLIENT_CLOSED, RequestStats

SEGMENT, PROBABILITY = "/v1/segment", "/v1/probability"
MODEL_HEADER = "Segfleet-Model"
_WEB = Path(__file__).parent / "web"
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/web/page.css": ("page.css", "text/css; charset=utf-8"),
    "/web/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/web/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
# The pages load nothing from other hosts and may not be framed.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {
        "model": ErrorResponse,
        "description": "The image is damaged, or the body or mask_format is malformed.",
    },
    401: {"model": ErrorResponse, "description": "The API key is missing or wrong."},
    406: {
        "model": ErrorResponse,
        "description": "Neither image/png nor application/json is accepted.",
    },
    408: {"model": ErrorResponse, "description": "The response took too long."},
    413: {
        "model": ErrorResponse,
        "description": "The body has too many bytes or the image has too many pixels.",
    },
    415: {"model": ErrorResponse, "description": "The body is not a supported image."},
    503: {"model": ErrorResponse, "description": "Too many requests are waiting: try again later."},
}
_IMAGE_TEXT = (
    "The image is the body, or the file named image of a form. If the model has n neighbours, it "
    "is a TIFF with 2n + 1 slices that follow each other, the lowest first, or one slice, which is "
    "repeated."
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys(("image/png", "image/jpeg", "image/bmp", "image/tiff"), _BINARY),
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": _BINARY["schema"]},
                }
            },
        },
    }
}

_MASK_FORMAT = {
    "name": "mask_format",
    "in": "query",
    "required": False,
    "description": "How the PNG of several classes is written.",
    "schema": {"type": "string", "enum": list(get_args(MaskFormat)), "default": "indices"},
}

log = logging.getLogger(__name__)


class Service(Protocol):
    """The interface of a replica that the routes use."""

    settings: Serve
    key_digest: str | None
    """SHA-256, in hex, of the API key; None if none is required."""
    stats: RequestStats
    limiter: ConcurrencyLimiter

    @property
    def loaded_model(self) -> LoadedModel:
        """The model that is served."""
        ...

    @property
    def stack_size(self) -> int:
        """The slices that the model is given for one mask: a slice and its neighbours."""
        ...

    async def segment(
        self, image: np.ndarray, probability: bool
    ) -> tuple[Segmentation, LoadedModel]:
        """The segmentation of a slice [H, W, C], with its probability if requested; its model.

        C: see Predictor.predict_batch.
        """
        ...

    async def status(self) -> ServiceStatus:
        """The status of the service, over all replicas."""
        ...

    async def metrics(self) -> bytes:
        """The metrics of the service, over all replicas, for Prometheus."""
        ...


def build_app(service: Service) -> ASGIApp:
    """The ASGI application of a service."""
    app = FastAPI(
        title="segfleet",
        description="Masks of image slices. Research software, not a medical device.",
        version="1",
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            RequestError: _handle_request_error,
            HTTPException: _handle_http_exception,
            Exception: _handle_exception,
        },
    )
    for path, (name, media_type) in _PAGES.items():
        app.add_api_route(path, _page_route(name, media_type), include_in_schema=False)
    app.add_api_route(
        "/healthz", _get_health, response_model=Health, summary="Whether the service responds"
    )
    _add_segment_route(app, service)
    _add_status_routes(app, service)
    return _CountingMiddleware(app, service.stats)


def _add_segment_route(app: FastAPI, service: Service) -> None:
    @app.post(
        SEGMENT,
        summary="The mask of a slice",
        description=f"{_IMAGE_TEXT} Accept selects the response: application/json or image/png. "
        "The PNG of a single class is 0 and 255; of several, the query parameter mask_format "
        "selects indices (class indices with a palette), values (the grey values of the training "
        "masks) or colors.",
        dependencies=_api_key_dependencies(service),
        response_model=None,
        responses={
            200: {"model": SegmentResponse, "content": {PNG: _BINARY}, "description": "The mask."},
            **_RESPONSES,
        },
        openapi_extra={**_BODY, "parameters": [_MASK_FORMAT]},
    )
    async def segment(request: Request) -> Response:
        start = time.perf_counter()
        content_type = negotiate_content_type(request.headers.get("accept"), (PNG, JSON))
        mask_format = parse_mask_format(request.query_params.get("mask_format"))

        def respond(segmentation: Segmentation, model: LoadedModel) -> Response:
            mask, headers = segmentation.mask, {MODEL_HEADER: model.label}
            if content_type == PNG:
                png = encode_mask(mask, model.predictor.manifest.classes, mask_format)
                return Response(png, 200, headers, PNG)
            seconds = time.perf_counter() - start
            return Response(_encode_response(mask, model, seconds), 200, headers, JSON)

        return await _segment(request, service, False, respond)

    @app.post(
        PROBABILITY,
        summary="The probabilities of a slice",
        description=f"{_IMAGE_TEXT} The response of a model with a single class is a grey PNG of "
        "16 bits, 65535 times the probability; of several, an NPZ file of NumPy with the arrays "
        "probability, float32 [height, width, classes], and classes, the names.",
        dependencies=_api_key_dependencies(service),
        response_model=None,
        responses={
            200: {"content": {PNG: _BINARY, NPZ: _BINARY}, "description": "The probabilities."},
            **{status: response for status, response in _RESPONSES.items() if status != 406},
        },
        openapi_extra=_BODY,
    )
    async def probability(request: Request) -> Response:
        return await _segment(request, service, True, _encode_probability)


async def _segment(
    request: Request,
    service: Service,
    probability: bool,
    respond: Callable[[Segmentation, LoadedModel], Response],
) -> Response:
    """The response to a request for the segmentation of its slice.

    respond encodes it, in a thread. That takes up to a second for the probabilities of a large
    slice, so it is part of the work that the limits of time and concurrency are for.
    """
    async with time_limit(service.settings.request_timeout_s):
        with service.limiter.receiving() as count:
            data = await read_image(request, service.settings, service.stack_size, count)
            with service.limiter.request():
                async with service.limiter.slices:
                    if await request.is_disconnected():
                        return Response(status_code=CLIENT_CLOSED)
                    segmentation, model = await _segment_stack(data, service, probability)
                    return await asyncio.to_thread(respond, segmentation, model)


async def _segment_stack(
    data: bytes, service: Service, probability: bool
) -> tuple[Segmentation, LoadedModel]:
    """The segmentation of an image with as many slices as its model is given for one mask."""
    while True:
        stack_size = service.stack_size
        image = await decode_slice(data, stack_size)
        segmentation, model = await service.segment(image, probability)
        # Another model may have been loaded meanwhile.
        if model.predictor.manifest.stack_size == stack_size:
            return segmentation, model


def _encode_response(mask: np.ndarray, model: LoadedModel, seconds: float) -> str:
    version, classes = model.version, model.predictor.manifest.classes
    response = SegmentResponse.from_mask(mask, classes, version.name, version.version, seconds)
    return response.model_dump_json()


def _encode_probability(segmentation: Segmentation, model: LoadedModel) -> Response:
    assert segmentation.probability is not None, "it was requested"
    classes = model.predictor.manifest.classes
    content = encode_probability(segmentation.probability, classes)
    content_type = PNG if probability_suffix(classes) == ".png" else NPZ
    return Response(content, 200, {MODEL_HEADER: model.label}, content_type)


def _add_status_routes(app: FastAPI, service: Service) -> None:
    dependencies = _api_key_dependencies(service)

    @app.get("/v1/model", summary="The model that is served", dependencies=dependencies)
    async def get_model_info() -> ModelInfo:
        return model_info(service.loaded_model, service.settings.model)

    @app.get("/v1/status", summary="The status of the service", dependencies=dependencies)
    async def status() -> ServiceStatus:
        return await service.status()

    @app.get(
        "/metrics",
        summary="Metrics in the exposition format of Prometheus",
        dependencies=dependencies,
        response_class=Response,
    )
    async def metrics() -> Response:
        return Response(await service.metrics(), 200, media_type=METRICS_CONTENT_TYPE)


def _api_key_dependencies(service: Service) -> list[Any]:
    return [] if service.key_digest is None else [Depends(create_key_check(service.key_digest))]


def model_info(model: LoadedModel, reference: str) -> ModelInfo:
    """The response of /v1/model. reference: serve.model."""
    manifest = model.predictor.manifest
    return ModelInfo(
        model=model.version.name,
        version=model.version.version,
        reference=reference,
        run=manifest.name,
        created=manifest.created,
        fingerprint=manifest.fingerprint,
        commit=manifest.commit,
        image_size=manifest.image_size,
        image_channels=manifest.image_channels,
        neighbours=manifest.neighbours,
        classes=[ClassInfo.from_class(each) for each in manifest.classes],
        threshold=manifest.threshold,
        class_thresholds=manifest.class_thresholds,
        zooms=manifest.zooms,
        shifts=manifest.shifts,
        flips=manifest.flips,
        largest_component=manifest.post_processing.largest_component,
        fill_holes=manifest.post_processing.fill_holes,
        metrics=manifest.metrics,
        engine=model.predictor.engine.name,
    )


def _page_route(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    """A route that returns a file of web/, read once."""
    content = (_WEB / name).read_bytes()

    async def page() -> Response:
        return Response(content, 200, _PAGE_HEADERS, media_type=media_type)

    return page


async def _get_health() -> Health:
    return Health()


def _error_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(ErrorResponse(error=detail).model_dump(), status, headers)


async def _handle_request_error(_: Request, error: Any) -> Response:
    return _error_response(error.status, str(error), error.headers)


async def _handle_http_exception(request: Request, error: Any) -> Response:
    detail = {
        404: f"There is nothing at {request.url.path[:200]}; /docs lists the available paths.",
        405: f"{request.url.path[:200]} does not support {request.method[:20]}; see /docs.",
    }.get(error.status_code, f"{error.detail}.")
    return _error_response(error.status_code, detail, error.headers)


async def _handle_exception(_: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return _error_response(500, "The service failed; see its log for the reason.")


class _CountingMiddleware:
    """Counts the requests for segmentation and their outcome."""

    def __init__(self, app: ASGIApp, stats: RequestStats) -> None:
        self._app = app
        self._stats = stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (SEGMENT, PROBABILITY):
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        # None if the client closes the connection before the response; an exception becomes the
        # application's own 500.
        status: int | None = None

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and message["status"] != CLIENT_CLOSED:
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, record_status)
        finally:
            self._stats.record(status, time.perf_counter() - start)
