"""The running service over real HTTP: what it answers and what it rejects."""

import asyncio
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.config import Serve
from contract.imaging.decode import decode_mask
from inference.serving.app import build_app
from inference.serving.model_manager import LoadedModel
from inference.serving.request_limits import ConcurrencyLimiter
from inference.serving.schemas import ServiceStatus
from inference.serving.stats import RequestStats
from tests.processes import resident_bytes, titled

PNG = {"Content-Type": "image/png"}
AS_JSON = {"Accept": "application/json"}
SEGMENT = "/v1/segment"
Request = dict[str, Any]


@pytest.fixture(scope="module")
def client(service: Any) -> Iterator[httpx.Client]:
    with service.client() as made:
        yield made


@pytest.fixture(scope="module")
def own_door(service: Any) -> Iterator[httpx.Client]:
    with service.client(service.own_door()) as made:
        yield made


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def huge_png(width: int, height: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + bytes(40)


def replica_memory() -> int:
    """Resident bytes of the service's replicas."""
    replicas = titled("ray::ServeReplica:segfleet:Replica")
    assert replicas
    return sum(map(resident_bytes, replicas))


def test_a_png_comes_back_as_a_mask(client: httpx.Client, slice_png: bytes) -> None:
    answer = client.post(SEGMENT, content=slice_png, headers=PNG)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["segfleet-model"].startswith("bright@")
    mask = (decode_mask(answer.content, "mask") > 127).astype(np.uint8)
    expected = np.zeros((64, 96), np.uint8)
    expected[10:40, 20:60] = 1
    assert mask.shape == expected.shape
    assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) > 0.95


def test_json_says_the_same_as_the_png(client: httpx.Client, slice_png: bytes) -> None:
    content = client.post(SEGMENT, content=slice_png, headers=PNG).content
    mask = (decode_mask(content, "mask") > 127).astype(np.uint8)
    answer = client.post(SEGMENT, content=slice_png, headers={**PNG, **AS_JSON}).json()
    assert (answer["height"], answer["width"]) == mask.shape
    assert answer["area"] == mask.sum()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = {"x": columns[0], "y": rows[0], "width": np.ptp(columns) + 1, "height": np.ptp(rows) + 1}
    assert answer["bounding_box"] == box
    runs = np.repeat(np.arange(len(answer["mask"]["counts"])) % 2, answer["mask"]["counts"])
    np.testing.assert_array_equal(runs.reshape(mask.shape, order="F"), mask)
    assert 0 < answer["seconds"] < 60


def test_forms_formats_and_depths_are_taken(client: httpx.Client) -> None:
    grey = np.full((40, 50), 20, np.uint8)
    grey[5:20, 5:30] = 220
    images = [encoded(suffix, grey) for suffix in (".png", ".jpg", ".bmp", ".tif")]
    images += [encoded(".png", np.dstack([grey] * 3)), encoded(".tif", grey.astype(np.uint16))]
    for image in images:
        ways: list[Request] = [{"content": image, "headers": PNG}, {"files": {"image": image}}]
        for sent in ways:
            answer = client.post(SEGMENT, **sent)
            assert answer.status_code == 200, answer.text
            assert decode_mask(answer.content, "mask").shape == grey.shape


def test_the_model_and_the_health_are_reported(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    model = client.get("/v1/model").json()
    assert model["reference"] == "bright@production"
    assert model["engine"] == "OpenVINO"
    assert model["run"].startswith("bright-")


def test_pages_name_no_outside_address(client: httpx.Client) -> None:
    for path in ("/", "/docs", "/web/page.js", "/web/docs.js", "/web/page.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "://" not in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_openapi_names_all_errors(client: httpx.Client) -> None:
    output = client.get("/openapi.json").json()["paths"][SEGMENT]["post"]
    assert set(output["responses"]) == {"200", "400", "401", "406", "408", "413", "415", "503"}
    assert set(output["responses"]["200"]["content"]) == {"image/png", "application/json"}


def test_the_key_is_requested(service: Any, slice_png: bytes) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as stranger:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": service.key}):
            answer = stranger.post(SEGMENT, content=slice_png, headers={**PNG, **headers})
            assert answer.status_code == 401
            assert answer.json()["error"].startswith("The API key is missing or wrong")
            assert stranger.get("/v1/model", headers=headers).status_code == 401
            assert stranger.get("/v1/status", headers=headers).status_code == 401
        assert stranger.get("/").status_code == 200


REFUSALS = {
    "not found": ("GET", "/v2", {}, 404, "nothing at /v2"),
    "wrong method": ("GET", SEGMENT, {}, 405, "does not support GET"),
    "no body": ("POST", SEGMENT, {"headers": PNG}, 400, "no body"),
    "wrong type": ("POST", SEGMENT, {"json": {}}, 415, "content type 'application/json'"),
    "no image": ("POST", SEGMENT, {"content": b"x", "headers": PNG}, 415, "not a PNG, JPEG, BMP"),
    "no file": ("POST", SEGMENT, {"files": {"other": b"x"}}, 400, "no file named image"),
    "two files": ("POST", SEGMENT, {"files": [("image", b"x")] * 2}, 400, "Too many files"),
    "no answer": (
        "POST",
        SEGMENT,
        {"content": b"x", "headers": {**PNG, "Accept": "text/html"}},
        406,
        "accept one of them",
    ),
    "too many bytes": (
        "POST",
        SEGMENT,
        {"content": bytes(2_000_001), "headers": PNG},
        413,
        "more than 2000000 bytes",
    ),
    "too many pixels": (
        "POST",
        SEGMENT,
        {"content": huge_png(60_000, 60_000), "headers": PNG},
        413,
        "3600000000 pixels",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_rejection_is_one_sentence(client: httpx.Client, name: str) -> None:
    method, path, sent, status, words = REFUSALS[name]
    answer = client.request(method, path, **sent)
    assert answer.status_code == status, answer.text
    assert words.lower() in answer.json()["error"].lower()


def test_a_body_without_a_length_is_counted_as_it_comes(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(300):
            yield bytes(10_000)

    answer = client.post(SEGMENT, content=chunks(), headers=PNG)
    assert answer.status_code == 413


NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
IMAGES = [encoded(suffix, NOISE) for suffix in (".png", ".jpg", ".bmp", ".tif")]

truncated = st.builds(
    lambda image, share: {"content": image[: int(len(image) * share)], "headers": PNG},
    st.sampled_from(IMAGES),
    st.floats(0.0, 0.95),
)
huge = st.builds(
    lambda width, height: {"content": huge_png(width, height), "headers": PNG},
    st.integers(2001, 2**32 - 1),
    st.integers(2001, 2**32 - 1),
)
random_bytes = st.builds(
    lambda start, rest: {"content": start + rest, "headers": PNG},
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM", b"II*\0", b"MM\0*", b"II+\0"]),
    st.binary(max_size=200),
)
wrong_types = st.builds(
    lambda kind, accept: {
        "content": IMAGES[0],
        "headers": {"Content-Type": kind, "Accept": accept},
    },
    st.sampled_from(["text/plain", "application/json", "multipart/mixed", "application/pdf", "//"]),
    st.sampled_from(["*/*", "text/html", "image/png;q=", "application/json;q=x"]),
)
bad_accept = st.builds(
    lambda accept: {"content": IMAGES[0], "headers": {**PNG, "Accept": accept}},
    st.sampled_from(["text/html", "image/webp", ";", ",,;q=1", "image/png;q=0", "a/b;q=nan"]),
)
bad_forms = st.builds(
    lambda kind, body: {"content": body, "headers": {"Content-Type": kind}},
    st.sampled_from(
        [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=x",
            "multipart/form-data; boundary=x; charset=nonsense",
            f"multipart/form-data; boundary={'y' * 300}",
        ]
    ),
    st.one_of(
        st.binary(max_size=100),
        st.sampled_from(
            [
                b"--x\r\n",
                b"--x--\r\n",
                b"--x\r\nContent-Disposition: form-data\r\n\r\n",
                b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nhi\r\n--x--\r\n',
                b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n',
                b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\xff\xd8'
                b"\r\n--x--\r\n",
                b"--x\r\n" + b"A" * 5000,
                b"--x\r\nname: \xff\xfe\r\n\r\n\r\n--x--",
            ]
        ),
    ),
)


@pytest.mark.timeout(280)
def test_malformed_requests_are_all_rejected(client: httpx.Client, own_door: httpx.Client) -> None:
    before: list[int] = []
    seen = 0

    @settings(max_examples=2000, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.sampled_from((client, own_door)),
        st.one_of(truncated, huge, random_bytes, wrong_types, bad_accept, bad_forms),
    )
    def rejected(server: httpx.Client, request: Request) -> None:
        nonlocal seen
        answer = server.post(SEGMENT, **request)
        assert 400 <= answer.status_code < 500, (request, answer.text)
        assert answer.json()["error"].endswith(".")
        seen += 1
        if seen == 200:
            before.append(replica_memory())

    rejected()
    assert seen >= 1000
    assert replica_memory() - before[0] < 40 * 2**20
    assert client.get("/v1/status").json()["errors"] == 0


def test_a_replica_answers_the_same_at_its_own_door(
    service: Any, client: httpx.Client, own_door: httpx.Client
) -> None:
    assert own_door.base_url != client.base_url
    image = encoded(".png", NOISE)
    one, two = (server.post(SEGMENT, content=image, headers=PNG) for server in (client, own_door))
    assert (one.status_code, two.status_code) == (200, 200)
    assert one.content == two.content
    assert own_door.post(SEGMENT, content=image, headers={"Authorization": "x"}).status_code == 401
    assert f"version 1 at {service.own_door()}" in service.run("status").stdout


@pytest.mark.parametrize("by_itself", [False, True])
def test_too_many_at_once_are_turned_away_and_the_others_answered(
    service: Any, by_itself: bool
) -> None:
    image = encoded(".jpg", np.zeros((1500, 1500), np.uint8))
    server = service.own_door() if by_itself else service.url

    def post(_: int) -> httpx.Response:
        with service.client(server) as client:
            return client.post(SEGMENT, content=image, headers=PNG)

    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(post, range(60)))
    rejected = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert len(answers) - len(rejected) >= 16
    for answer in rejected:
        assert answer.json()["error"] == "Too many requests are waiting: try again later."
        assert answer.headers["retry-after"] == "1"


class Slow:
    """A service that segments indefinitely, or fails at once."""

    key_digest: str | None = None

    def __init__(self, fails: bool, timeout_s: float = 60.0) -> None:
        self.settings = Serve(request_timeout_s=timeout_s)
        self.stats = RequestStats()
        self.limiter = ConcurrencyLimiter(max_slices=1, max_queued=1)
        self.began = asyncio.Event()
        self._fails = fails

    @property
    def loaded_model(self) -> LoadedModel:
        raise NotImplementedError

    async def segment(self, image: np.ndarray) -> tuple[np.ndarray, LoadedModel]:
        self.began.set()
        if self._fails:
            raise RuntimeError("a fault of the service")
        return await asyncio.get_running_loop().create_future()

    async def status(self) -> ServiceStatus:
        raise NotImplementedError


def asking(service: Slow) -> httpx.AsyncClient:
    """A client of an application in this process."""
    transport = httpx.ASGITransport(build_app(service), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://here")


def test_a_slice_is_not_decoded_before_there_is_room(slice_png: bytes) -> None:
    async def ask() -> None:
        service = Slow(fails=True)
        async with asking(service) as client:
            await service.limiter.slices.acquire()
            request = asyncio.create_task(client.post(SEGMENT, content=slice_png, headers=PNG))
            done, _ = await asyncio.wait([request], timeout=0.5)
            assert not done
            assert not service.began.is_set()
            service.limiter.slices.release()
            assert (await request).status_code == 500

    asyncio.run(ask())


@pytest.mark.parametrize(("fails", "errors"), [(False, 0), (True, 1)])
def test_a_client_that_hangs_up_is_no_error(slice_png: bytes, fails: bool, errors: int) -> None:
    async def ask() -> RequestStats:
        service = Slow(fails)
        async with asking(service) as client:
            request = asyncio.create_task(client.post(SEGMENT, content=slice_png, headers=PNG))
            await service.began.wait()
            if fails:
                assert (await request).status_code == 500
            else:
                request.cancel()
                await asyncio.wait([request])
        assert not service.limiter.slices.locked()
        return service.stats

    stats = asyncio.run(ask())
    assert (stats.requests, stats.rejected, stats.errors) == (1, 0, errors)
    assert not stats.latencies


def test_what_takes_too_long_is_given_up_with_a_sentence(slice_png: bytes) -> None:
    async def ask() -> tuple[httpx.Response, Slow]:
        service = Slow(fails=False, timeout_s=0.2)
        async with asking(service) as client:
            return await client.post(SEGMENT, content=slice_png, headers=PNG), service

    answer, service = asyncio.run(ask())
    assert answer.status_code == 408
    assert answer.json()["error"].startswith("The request was not answered within 0.2 s")
    assert (service.stats.rejected, service.limiter.slices.locked()) == (1, False)


def test_that_has_hung_up_is_not_segmented(slice_png: bytes) -> None:
    async def ask() -> Slow:
        service = Slow(fails=False)
        messages = iter(
            [
                {"type": "http.request", "body": slice_png, "more_body": False},
                {"type": "http.disconnect"},
            ]
        )
        scope = {
            "type": "http",
            "method": "POST",
            "path": SEGMENT,
            "query_string": b"",
            "headers": [(b"content-type", b"image/png")],
        }

        async def receive() -> Any:
            return next(messages)

        async def send(_: Any) -> None:
            pass

        await build_app(service)(scope, receive, send)
        return service

    service = asyncio.run(ask())
    assert not service.began.is_set()
    assert (service.stats.requests, service.stats.rejected, service.stats.errors) == (1, 0, 0)
