"""The response type, the API key and the image of a request."""

import asyncio

import cv2
import numpy as np
import pytest
from fastapi import Request

from inference.serving.request_limits import RequestError
from inference.serving.request_parsing import (
    JSON,
    PNG,
    create_key_check,
    decode_slice,
    key_digest_of,
    negotiate_content_type,
    parse_mask_format,
)

ACCEPTED = {
    None: "image/png",
    "": "image/png",
    "*/*": "image/png",
    "image/*": "image/png",
    "application/json": "application/json",
    "application/json, */*;q=0.1": "application/json",
    "image/png;q=0.2, application/*": "application/json",
    "text/html, image/*;q=0.5": "image/png",
}


@pytest.mark.parametrize("accept", ACCEPTED)
def test_accept_selects_the_content_type(accept: str | None) -> None:
    assert negotiate_content_type(accept, (PNG, JSON)) == ACCEPTED[accept]


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0, application/json;q=0", "nonsense"])
def test_accept_without_a_supported_type_is_rejected(accept: str) -> None:
    with pytest.raises(RequestError, match="accept one of them"):
        negotiate_content_type(accept, (PNG, JSON))


def test_a_mask_format_is_one_of_three() -> None:
    assert parse_mask_format(None) == "indices"
    assert parse_mask_format("colors") == "colors"
    with pytest.raises(RequestError, match="'rgb' is not one of indices, values, colors"):
        parse_mask_format("rgb")


@pytest.mark.parametrize(
    ("authorization", "is_accepted"),
    [
        (b"Bearer secret", True),
        (b"bearer  secret ", True),
        (b"Bearer Secret", False),
        (b"Basic secret", False),
        (b"", False),
    ],
)
def test_only_the_exact_api_key_is_accepted(authorization: bytes, is_accepted: bool) -> None:
    check = create_key_check(key_digest_of("secret"))

    async def run() -> None:
        await check(request)

    request = Request({"type": "http", "headers": [(b"authorization", authorization)]})
    if is_accepted:
        asyncio.run(run())
    else:
        with pytest.raises(RequestError, match="The API key is missing or wrong") as error:
            asyncio.run(run())
        assert error.value.status == 401


def test_a_slice_is_decoded_and_a_damaged_one_is_rejected() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = cv2.imencode(".png", image)[1].tobytes()
    np.testing.assert_array_equal(asyncio.run(decode_slice(data, 1))[..., 0], image)
    with pytest.raises(RequestError, match=r"^The image ") as error:
        asyncio.run(decode_slice(data[:40], 1))
    assert error.value.status == 400
