"""What is taken from a request and what is refused: the answer's type, the key, room, the image.

Bytes are counted while they come in and pixels are read from the image's header, both before
anything is decoded.
"""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from typing import final

import numpy as np
from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from contract.config import Serve
from contract.errors import DataError
from contract.imaging.encode import decode_bytes
from contract.imaging.headers import UnknownFormatError, read_header

PNG, JSON = "image/png", "application/json"


class RequestError(Exception):
    """A request that cannot be answered: its HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


@final
class ConcurrencyLimiter:
    """What a replica has in hand at most."""

    def __init__(self, slices: int, waiting: int) -> None:
        """slices: decoded and not yet segmented; waiting: requests beyond these."""
        self.slices = asyncio.Semaphore(slices)
        """To be held while a slice is decoded and segmented."""
        self._most, self._taken = slices + waiting, 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """To be held from before a body is read; RefusalError (503) where too many are."""
        if self._taken >= self._most:
            raise RequestError(
                503, "Too many requests are waiting: try again later.", {"Retry-After": "1"}
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncGenerator[None, None]:
    """RefusalError (408) where the block takes longer."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise RequestError(
            408, f"The request was not answered within {seconds:g} s: try again later."
        ) from error


def negotiate_content_type(accept: str | None) -> str:
    """image/png or application/json, as an Accept header prefers; PNG where it does not care.

    Raises RefusalError (406) where it accepts neither. RFC 9110, 12.5.1: the most specific range
    decides a type's quality.
    """
    if accept is None or not accept.strip():
        return PNG
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    quality = {kind: _quality(kind, ranges) for kind in (PNG, JSON)}
    best = max(quality, key=lambda kind: quality[kind])
    if quality[best] <= 0:
        raise RequestError(406, f"The answer can be {PNG} or {JSON}: accept one of them.")
    return best


def _range(part: str) -> tuple[str, float]:
    """("image/*", 0.8) of "image/*;q=0.8"; a malformed quality counts as 0."""
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return kind, float(parameter[2:])
            except ValueError:
                return kind, 0.0
    return kind, 1.0


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    for pattern in (kind, f"{kind.split('/')[0]}/*", "*/*"):
        found = [quality for name, quality in ranges if name == pattern]
        if found:
            return max(found)
    return 0.0


def authorizer(key_digest: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency that refuses requests without the API key; it compares in constant time.

    key_digest: SHA-256 of the key, in hex.
    """

    async def check(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = digest_of(key.strip())
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, key_digest):
            raise RequestError(
                401,
                "The API key is missing or wrong: send the header Authorization: Bearer KEY.",
                {"WWW-Authenticate": "Bearer"},
            )

    return check


def digest_of(key: str) -> str:
    """SHA-256, in hex, of an API key."""
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


async def read_image(request: Request, limits: Serve) -> bytes:
    """The image in a request, by its header within the limits; RefusalError where there is none."""
    data = await _image_bytes(request, limits.max_bytes)
    _check_header(data, limits.max_pixels)
    return data


async def decode_slice(data: bytes) -> np.ndarray:
    """The slice in an image, uint8 or int16 [H, W, C]; RefusalError where it is damaged."""
    try:
        return await asyncio.to_thread(decode_bytes, data)
    except DataError as error:
        raise RequestError(400, _capital(error)) from error


async def _image_bytes(request: Request, most: int) -> bytes:
    """The image in a request, of at most so many bytes: its body, or the file of its form."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not (form or kind.startswith("image/") or kind in ("", "application/octet-stream")):
        raise RequestError(
            415,
            f"The content type {kind[:80]!r} is not understood: send the image itself with a "
            "content type such as image/png, or a multipart/form-data form with the file image.",
        )
    body = await _body(request, most)
    if not body:
        raise RequestError(400, "The request has no body: send an image.")
    return await _form_file(request, body) if form else body


async def _body(request: Request, most: int) -> bytes:
    refusal = RequestError(413, f"The request has more than {most} bytes.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most:
        raise refusal
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise refusal
    except ClientDisconnect as error:
        raise RequestError(400, "The request broke off.") from error
    return bytes(body)


async def _form_file(request: Request, body: bytes) -> bytes:
    """The one file of a multipart form."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=16)
    # Slices of patients stay in memory and off the disk; the body is there anyway.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, ValueError, LookupError) as error:
        raise RequestError(400, f"The form is malformed ({_words(error)}).") from error
    try:
        file = form.get("image")
        if not isinstance(file, UploadFile):
            raise RequestError(400, "The form has no file called image.")
        return await file.read()
    finally:
        await form.close()


def _check_header(data: bytes, most: int) -> None:
    """Refuse what is no image, or one with more pixels than may be decoded."""
    try:
        header = read_header(data)
    except UnknownFormatError as error:
        raise RequestError(415, _capital(error)) from error
    except DataError as error:
        raise RequestError(400, _capital(error)) from error
    if header.pixels > most:
        raise RequestError(
            413, f"The {header.kind} image has {header.pixels} pixels, more than {most}."
        )


def _capital(error: Exception) -> str:
    """The error's sentence with a capital, as it stands alone in an answer."""
    text = str(error)
    return text[:1].upper() + text[1:]


def _words(error: Exception) -> str:
    return str(error).strip().rstrip(".").lower()[:200]
