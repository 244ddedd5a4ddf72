"""What a request contains: the type of the response, the API key, the image.

Bytes are counted while they arrive and the number of pixels is read from the header of the image,
both before anything is decoded.
"""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import get_args

import numpy as np
from fastapi import Request
from python_multipart.exceptions import FormParserError
from ray.exceptions import TaskCancelledError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from contract.config import Serve
from contract.errors import DataError
from contract.imaging.decode import decode_stack
from contract.imaging.headers import UnknownFormatError, read_header
from contract.imaging.segmentation_class import MaskFormat
from inference.serving.request_limits import RequestError

PNG, JSON, NPZ = "image/png", "application/json", "application/x-npz"

# Seconds that a client may take to send the next part of a body.
_STALL_TIMEOUT_S = 5.0
# A body that is too large is received up to this multiple of the limit.
_DISCARD_FACTOR = 4


def parse_mask_format(value: str | None) -> MaskFormat:
    """The query parameter mask_format; RequestError (400) if it is not a format."""
    if value is None:
        return "indices"
    for mask_format in get_args(MaskFormat):
        if value == mask_format:
            return mask_format
    formats = ", ".join(get_args(MaskFormat))
    raise RequestError(400, f"mask_format = {value[:40]!r} is not one of {formats}.")


def negotiate_content_type(accept: str | None, content_types: Sequence[str]) -> str:
    """The content type that an Accept header prefers; the first one without a preference.

    Raises RequestError (406) if it accepts none of them. RFC 9110, 12.5.1: the most specific range
    decides the quality of a type.
    """
    if accept is None or not accept.strip():
        return content_types[0]
    ranges = [_parse_range(part) for part in accept.split(",") if part.strip()]
    quality = {content_type: _quality(content_type, ranges) for content_type in content_types}
    best = max(quality, key=lambda content_type: quality[content_type])
    if quality[best] <= 0:
        raise RequestError(
            406, f"The response can be {' or '.join(content_types)}: accept one of them."
        )
    return best


def _parse_range(part: str) -> tuple[str, float]:
    """("image/*", 0.8) from "image/*;q=0.8"; a malformed quality counts as 0."""
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media_range, float(parameter[2:])
            except ValueError:
                return media_range, 0.0
    return media_range, 1.0


def _quality(content_type: str, ranges: list[tuple[str, float]]) -> float:
    for pattern in (content_type, f"{content_type.split('/')[0]}/*", "*/*"):
        matching = [quality for media_range, quality in ranges if media_range == pattern]
        if matching:
            return max(matching)
    return 0.0


def create_key_check(key_digest: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency that rejects requests without the API key; it compares in constant time.

    key_digest: SHA-256 of the key, in hex.
    """

    async def check_key(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        digest = key_digest_of(key.strip())
        if scheme.lower() != "bearer" or not hmac.compare_digest(digest, key_digest):
            raise RequestError(
                401,
                "The API key is missing or wrong: send the header Authorization: Bearer KEY.",
                {"WWW-Authenticate": "Bearer"},
            )

    return check_key


def key_digest_of(key: str) -> str:
    """SHA-256, in hex, of an API key."""
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


async def read_image(
    request: Request, limits: Serve, stack_size: int, count: Callable[[int], None]
) -> bytes:
    """The image in a request, within the limits according to its header; RequestError if none.

    stack_size: the largest number of slices in it. count: called with the number of bytes of each
    part of the body; may raise.
    """
    data = await _read_image_bytes(request, limits.max_bytes, count)
    _check_header(data, limits.max_pixels, stack_size)
    return data


async def decode_slice(data: bytes, stack_size: int) -> np.ndarray:
    """The slice or the stack in an image, uint8 or int32 [H, W, C].

    Raises RequestError if it is damaged, or contains another number of slices than 1 or stack_size.
    """
    try:
        return await asyncio.to_thread(decode_stack, data, "the image", stack_size)
    except DataError as error:
        raise RequestError(400, _capitalize(error)) from error


async def _read_image_bytes(
    request: Request, max_bytes: int, count: Callable[[int], None]
) -> bytes:
    """The image in a request: its body, or the file of its form."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    is_form = content_type == "multipart/form-data"
    is_image = content_type.startswith("image/") or content_type in ("", "application/octet-stream")
    if not (is_form or is_image):
        raise RequestError(
            415,
            f"The content type {content_type[:80]!r} is not supported: send the image itself with "
            "a content type such as image/png, or a multipart/form-data form with the file image.",
        )
    body = await _read_body(request, max_bytes, count)
    if not body:
        raise RequestError(400, "The request has no body: send an image.")
    return await _read_form_file(request, body) if is_form else body


async def _read_body(request: Request, max_bytes: int, count: Callable[[int], None]) -> bytes:
    """The body; RequestError if it is too large, or if it stops arriving.

    A client that is still sending would not read the response, but see its connection reset. So
    the rest of a body that is too large is received and discarded, within limits.
    """
    too_large = RequestError(413, f"The request has more than {max_bytes} bytes.")
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdecimal() else 0
    # A client that expects 100 Continue has not begun to send.
    if size > max_bytes and (size > _DISCARD_FACTOR * max_bytes or "expect" in request.headers):
        raise too_large
    body, received = bytearray(), 0
    async with aclosing(_receive(request)) as chunks:
        async for chunk in chunks:
            received += len(chunk)
            if received > _DISCARD_FACTOR * max_bytes:
                raise too_large
            if max(received, size) <= max_bytes:
                count(len(chunk))
                body += chunk
    if received > max_bytes:
        raise too_large
    return bytes(body)


async def _receive(request: Request) -> AsyncGenerator[bytes, None]:
    """The parts of a body; RequestError if the client closes the connection, or sends nothing."""
    timeout = asyncio.timeout(None)
    clock = asyncio.get_running_loop().time
    try:
        async with timeout:
            timeout.reschedule(clock() + _STALL_TIMEOUT_S)
            async for chunk in request.stream():
                yield chunk
                timeout.reschedule(clock() + _STALL_TIMEOUT_S)
    except (ClientDisconnect, TaskCancelledError) as error:
        # Behind Ray Serve's proxy, Serve cancels the task that passes on the body.
        raise RequestError(400, "The client closed the connection.") from error
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise RequestError(
            408, f"No part of the body arrived within {_STALL_TIMEOUT_S:g} s: send it again."
        ) from error


async def _read_form_file(request: Request, body: bytes) -> bytes:
    """The one file of a multipart form."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=16)
    # Slices of patients stay in memory and are not written to disk; the body is in memory anyway.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, ValueError, LookupError) as error:
        reason = str(error).strip().rstrip(".")[:200]
        raise RequestError(400, f"The form is malformed ({reason}).") from error
    try:
        file = form.get("image")
        if not isinstance(file, UploadFile):
            raise RequestError(400, "The form has no file named image.")
        return await file.read()
    finally:
        await form.close()


def _check_header(data: bytes, max_pixels: int, max_pages: int) -> None:
    """Reject data that is not an image, or an image with more pixels than may be decoded."""
    try:
        header = read_header(data, max_pages)
    except UnknownFormatError as error:
        raise RequestError(415, _capitalize(error)) from error
    except DataError as error:
        raise RequestError(400, _capitalize(error)) from error
    if header.pixels > max_pixels:
        raise RequestError(
            413, f"The {header.kind} image has {header.pixels} pixels, more than {max_pixels}."
        )


def _capitalize(error: Exception) -> str:
    """The sentence of an error with a capital letter, because a response has nothing before it."""
    text = str(error)
    return text[:1].upper() + text[1:]
