"""The routes of the running service over HTTP: responses and rejected requests."""

import asyncio
import io
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import inference
from contract.config import Serve
from contract.errors import ClusterError, DataError
from contract.imaging.decode import decode_image, decode_mask
from contract.imaging.encode import encode_stack
from contract.registry import Registry, open_version_bundle
from contract.storage import open_storage
from inference.predictor import Segmentation, load_predictor
from inference.serving.app import Service, build_app
from inference.serving.model_manager import LoadedModel, ModelManager
from inference.serving.request_limits import ConcurrencyLimiter
from inference.serving.schemas import ServiceStatus
from inference.serving.stats import RequestStats
from tests.end_to_end.test_python import SERVICE_BLOCK, code_blocks
from tests.inference.conftest import THREE_CLASSES
from tests.processes import resident_bytes, titled
from tests.waiting import HANG_TIMEOUT_S
from trainer.evaluation.slice_reader import load_saved_model

PNG = {"Content-Type": "image/png"}
AS_JSON = {"Accept": "application/json"}
SEGMENT = "/v1/segment"
Request = dict[str, Any]


@pytest.fixture(scope="module")
def client(service: Any) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture(scope="module")
def replica_client(service: Any) -> Iterator[httpx.Client]:
    with service.client(service.replica_url()) as client:
        yield client


def encode_image(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def huge_png(width: int, height: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + bytes(40)


def replica_memory() -> int:
    """Resident bytes of the service's replicas."""
    replicas = titled("ray::ServeReplica:segfleet:Replica")
    assert replicas
    return sum(map(resident_bytes, replicas))


def test_a_slice_is_segmented_as_png(client: httpx.Client, slice_png: bytes) -> None:
    response = client.post(SEGMENT, content=slice_png, headers=PNG)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["segfleet-model"].startswith("bright@")
    mask = (decode_mask(response.content, "mask") > 127).astype(np.uint8)
    expected = np.zeros((64, 96), np.uint8)
    expected[10:40, 20:60] = 1
    assert mask.shape == expected.shape
    assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) > 0.95


def test_service_predict_and_evaluate_write_identical_masks(
    service: Any, client: httpx.Client
) -> None:
    """A large rectangle with a hole, and a small one: the bundle fills it and drops the other."""
    image = np.full((64, 96), 20, np.uint8)
    image[10:50, 10:60] = 220
    image[25:35, 25:40] = 20
    image[10:20, 75:90] = 220
    version = service.registry.resolve("bright@1")
    predictor = load_predictor(open_version_bundle(version))
    response = client.post(SEGMENT, content=encode_image(".png", image), headers=PNG)
    served = (decode_mask(response.content, "mask") > 127).astype(np.uint8)
    np.testing.assert_array_equal(served, predictor.predict(image).mask)
    evaluated, _ = load_saved_model(Path(version.bundle))(image[None, ..., None])
    np.testing.assert_array_equal(served, evaluated[0])
    graph, _ = predictor.engine.infer(image[None, ..., None])[::-1]
    assert graph[0, 30, 32] == 0
    assert served[30, 32] == 1
    assert graph[0, 15, 82] == 1
    assert served[15, 82] == 0
    model = client.get("/v1/model").json()
    assert (model["largest_component"], model["fill_holes"]) == ("slice", "slice")


def test_json_describes_the_same_mask_as_the_png(client: httpx.Client, slice_png: bytes) -> None:
    content = client.post(SEGMENT, content=slice_png, headers=PNG).content
    mask = (decode_mask(content, "mask") > 127).astype(np.uint8)
    response = client.post(SEGMENT, content=slice_png, headers={**PNG, **AS_JSON}).json()
    assert (response["height"], response["width"]) == mask.shape
    (foreground,) = response["classes"]
    assert (foreground["name"], foreground["area"]) == ("foreground", mask.sum())
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = {"x": columns[0], "y": rows[0], "width": np.ptp(columns) + 1, "height": np.ptp(rows) + 1}
    assert foreground["bounding_box"] == box
    counts = foreground["mask"]["counts"]
    runs = np.repeat(np.arange(len(counts)) % 2, counts)
    np.testing.assert_array_equal(runs.reshape(mask.shape, order="F"), mask)
    assert 0 < response["seconds"] < 60


def test_the_probability_of_one_class_is_a_png_of_16_bits(
    client: httpx.Client, slice_png: bytes
) -> None:
    response = client.post("/v1/probability", content=slice_png, headers=PNG)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    probability = decode_image(response.content, "probability")[..., 0]
    png = client.post(SEGMENT, content=slice_png, headers=PNG).content
    np.testing.assert_array_equal(probability > 65535 / 2, decode_mask(png, "mask") > 0)
    assert len(np.unique(probability)) > 2
    assert client.post("/v1/probability", content=b"x", headers=PNG).status_code == 415


def test_several_classes_over_http(three_classes: Any, bands_png: bytes) -> None:
    with three_classes.client() as client:
        content, headers = {"content": bands_png}, {**PNG, **AS_JSON}
        response = client.post(SEGMENT, **content, headers=headers).json()
        png = client.post(SEGMENT, **content, headers=PNG).content
        colors = client.post(f"{SEGMENT}?mask_format=colors", **content, headers=PNG).content
        wrong = client.post(f"{SEGMENT}?mask_format=rgb", **content, headers=PNG)
        probabilities = client.post("/v1/probability", **content, headers=PNG)
        model = client.get("/v1/model").json()
    mask = decode_mask(png, "mask")
    assert set(np.unique(mask)) == {0, 1, 2, 3}
    assert [mask[25, x] for x in (4, 24, 48, 72)] == [0, 1, 2, 3]
    names = ["organ", "lesion", "bone"]
    assert [each["name"] for each in response["classes"]] == names
    assert [each["name"] for each in model["classes"]] == names
    for index, each in enumerate(response["classes"], start=1):
        assert each["area"] == (mask == index).sum()
        counts = each["mask"]["counts"]
        runs = np.repeat(np.arange(len(counts)) % 2, counts)
        np.testing.assert_array_equal(runs.reshape(mask.shape, order="F"), mask == index)
    in_color = decode_image(colors, "colors")
    for index, each in enumerate(THREE_CLASSES, start=1):
        assert (in_color[mask == index] == each.color).all()
    assert wrong.status_code == 400
    assert "not one of indices, values, colors" in wrong.json()["error"]
    assert probabilities.headers["content-type"] == "application/x-npz"
    with np.load(io.BytesIO(probabilities.content)) as arrays:
        assert arrays["classes"].tolist() == names
        assert arrays["probability"].shape == (64, 96, 3)
        assert arrays["probability"][25, 48].argmax() == 1
    segmentation = inference.connect(three_classes.url, three_classes.api_key).segment(bands_png)
    np.testing.assert_array_equal(segmentation.mask, mask)
    assert segmentation.area == (mask > 0).sum()


def test_prometheus_can_parse_the_metrics(client: httpx.Client, slice_png: bytes) -> None:
    for _ in range(3):
        assert client.post(SEGMENT, content=slice_png, headers=PNG).status_code == 200
    client.post(SEGMENT, content=b"x", headers=PNG)
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    counts = {
        sample.labels["status"]: sample.value for sample in families["segfleet_requests"].samples
    }
    assert counts["200"] >= 3
    assert counts["415"] >= 1
    latency = {
        sample.labels.get("le", sample.name): sample.value
        for sample in families["segfleet_request_duration_seconds"].samples
    }
    assert latency["+Inf"] == counts["200"]
    assert 0 < latency["segfleet_request_duration_seconds_sum"] < 10 * counts["200"]
    status = client.get("/v1/status").json()
    assert status["requests"] == sum(counts.values())
    (replicas,) = families["segfleet_replicas"].samples
    assert replicas.labels == {"model": "bright@production", "version": "1"}
    assert replicas.value == 1
    assert families["segfleet_model_load_error"].samples[0].value == 0
    assert families["segfleet_requests_in_flight"].samples[0].value == 0


def test_the_python_client_returns_the_same_mask(
    service: Any, client: httpx.Client, slice_png: bytes, tmp_path: Path
) -> None:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    png = client.post(SEGMENT, content=slice_png, headers=headers).content
    expected = decode_mask(png, "mask") > 0
    file = tmp_path / "slice.png"
    file.write_bytes(slice_png)
    python_client = inference.connect(service.url, service.api_key)
    for image in (file, slice_png, decode_image(slice_png, "slice")):
        segmentation = python_client.segment(image)
        assert segmentation.mask.dtype == np.uint8
        np.testing.assert_array_equal(segmentation.mask, expected)
        assert segmentation.area == expected.sum()
    assert python_client.model().version == python_client.status().replicas[0].version
    with pytest.raises(ClusterError, match="rejects the request"):
        inference.connect(service.url, "another key").status()
    with pytest.raises(DataError, match=r"cannot read the slice .*none\.png"):
        python_client.segment(tmp_path / "none.png")


def test_the_python_code_of_the_docs_gets_a_mask(
    service: Any, slice_png: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (block for block in code_blocks() if SERVICE_BLOCK in block)
    code = block.replace("http://127.0.0.1:8000", service.url)
    code = code.replace("api_key=None", f"api_key={service.api_key!r}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slice.png").write_bytes(slice_png)
    names: dict[str, Any] = {"inference": inference}
    exec(code, names)
    assert names["segmentation"].area > 0


def test_forms_and_all_formats_and_depths_are_accepted(client: httpx.Client) -> None:
    grey = np.full((40, 50), 20, np.uint8)
    grey[5:20, 5:30] = 220
    images = [encode_image(suffix, grey) for suffix in (".png", ".jpg", ".bmp", ".tif")]
    images += [
        encode_image(".png", np.dstack([grey] * 3)),
        encode_image(".tif", grey.astype(np.uint16)),
    ]
    for image in images:
        requests: list[Request] = [{"content": image, "headers": PNG}, {"files": {"image": image}}]
        for request in requests:
            response = client.post(SEGMENT, **request)
            assert response.status_code == 200, response.text
            assert decode_mask(response.content, "mask").shape == grey.shape


def test_the_model_and_the_health_are_returned(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    model = client.get("/v1/model").json()
    assert model["reference"] == "bright@production"
    assert model["engine"] == "OpenVINO"
    assert model["image_size"] == [32, 32]
    assert model["run"].startswith("bright-")


def test_pages_contain_no_url_of_other_hosts(client: httpx.Client) -> None:
    for path in ("/", "/docs", "/web/page.js", "/web/docs.js", "/web/page.css"):
        response = client.get(path)
        assert response.status_code == 200
        assert "://" not in response.text
        assert "default-src 'self'" in response.headers["content-security-policy"]


def test_openapi_lists_all_errors(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"][SEGMENT]["post"]
    assert set(operation["responses"]) == {"200", "400", "401", "406", "408", "413", "415", "503"}
    assert set(operation["responses"]["200"]["content"]) == {"image/png", "application/json"}


def test_the_api_key_is_required(service: Any, slice_png: bytes) -> None:
    with httpx.Client(base_url=service.url, timeout=HANG_TIMEOUT_S) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": service.api_key}):
            response = client.post(SEGMENT, content=slice_png, headers={**PNG, **headers})
            assert response.status_code == 401
            assert response.json()["error"].startswith("The API key is missing or wrong")
            assert client.get("/v1/model", headers=headers).status_code == 401
            assert client.get("/v1/status", headers=headers).status_code == 401
        assert client.get("/").status_code == 200


REJECTIONS = {
    "not found": ("GET", "/v2", {}, 404, "nothing at /v2"),
    "wrong method": ("GET", SEGMENT, {}, 405, "does not support GET"),
    "no body": ("POST", SEGMENT, {"headers": PNG}, 400, "no body"),
    "wrong type": ("POST", SEGMENT, {"json": {}}, 415, "content type 'application/json'"),
    "no image": ("POST", SEGMENT, {"content": b"x", "headers": PNG}, 415, "not a PNG, JPEG, BMP"),
    "no file": ("POST", SEGMENT, {"files": {"other": b"x"}}, 400, "no file named image"),
    "two files": ("POST", SEGMENT, {"files": [("image", b"x")] * 2}, 400, "Too many files"),
    "unsupported response type": (
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


@pytest.mark.parametrize("name", REJECTIONS)
def test_an_invalid_request_is_rejected_with_one_sentence(client: httpx.Client, name: str) -> None:
    method, path, arguments, status, words = REJECTIONS[name]
    response = client.request(method, path, **arguments)
    assert response.status_code == status, response.text
    assert words.lower() in response.json()["error"].lower()


def test_a_body_without_a_length_is_counted_while_it_arrives(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(300):
            yield bytes(10_000)

    response = client.post(SEGMENT, content=chunks(), headers=PNG)
    assert response.status_code == 413


NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
IMAGES = [encode_image(suffix, NOISE) for suffix in (".png", ".jpg", ".bmp", ".tif")]

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
def test_malformed_requests_are_all_rejected(
    client: httpx.Client, replica_client: httpx.Client
) -> None:
    memory: list[int] = []
    count = 0

    @settings(max_examples=2000, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.sampled_from((client, replica_client)),
        st.one_of(truncated, huge, random_bytes, wrong_types, bad_accept, bad_forms),
    )
    def check_rejection(server: httpx.Client, request: Request) -> None:
        nonlocal count
        response = server.post(SEGMENT, **request)
        assert 400 <= response.status_code < 500, (request, response.text)
        assert response.json()["error"].endswith(".")
        count += 1
        if count == 200:
            memory.append(replica_memory())

    check_rejection()
    assert count >= 1000
    assert replica_memory() - memory[0] < 40 * 2**20
    assert client.get("/v1/status").json()["errors"] == 0


def test_a_replica_responds_at_its_own_url_too(
    service: Any, client: httpx.Client, replica_client: httpx.Client
) -> None:
    assert replica_client.base_url != client.base_url
    image = encode_image(".png", NOISE)
    first, second = (
        server.post(SEGMENT, content=image, headers=PNG) for server in (client, replica_client)
    )
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content == second.content
    assert (
        replica_client.post(SEGMENT, content=image, headers={"Authorization": "x"}).status_code
        == 401
    )
    assert f"version 1 at {service.replica_url()}" in service.run_command("service").stdout


@pytest.mark.parametrize("is_direct", [False, True])
def test_requests_above_the_limit_are_rejected_and_the_others_segmented(
    service: Any, is_direct: bool
) -> None:
    image = encode_image(".jpg", np.zeros((1500, 1500), np.uint8))
    server = service.replica_url() if is_direct else service.url

    # One client for all threads: to create one takes so long that another thread's request, whose
    # header is sent, would wait for its body.
    with service.client(server) as client, ThreadPoolExecutor(60) as pool:
        responses = list(
            pool.map(lambda _: client.post(SEGMENT, content=image, headers=PNG), range(60))
        )
    rejected = [response for response in responses if response.status_code == 503]
    assert {response.status_code for response in responses} == {200, 503}
    assert len(responses) - len(rejected) >= 16
    for response in rejected:
        assert response.json()["error"] == "Too many requests are waiting: try again later."
        assert response.headers["retry-after"] == "1"


def send_part(address: tuple[str, int], declared: int, body: bytes, key: str) -> socket.socket:
    """A connection that has sent a part of a request."""
    connection = socket.create_connection(address, timeout=HANG_TIMEOUT_S)
    connection.sendall(
        f"POST {SEGMENT} HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {declared}\r\n\r\n".encode()
        + body
    )
    return connection


def test_slow_clients_leave_room_for_others(service: Any, slice_png: bytes) -> None:
    """Behind Ray Serve's proxy, and at the replica's own port."""
    urls = [httpx.URL(service.url), httpx.URL(service.replica_url())]
    with ExitStack() as stack:
        connections = [
            stack.enter_context(
                send_part((url.host, url.port or 80), 1_900_000, bytes(100), service.api_key)
            )
            for url in urls
            for _ in range(900)
        ]
        for url in urls:
            with service.client(url) as client:
                for _ in range(5):
                    assert client.post(SEGMENT, content=slice_png, headers=PNG).status_code == 200
        # Slow clients are told after a few seconds without a byte.
        response = b""
        while part := connections[0].recv(65536):
            response += part
            if response.endswith(b"}"):
                break
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"No part of the body arrived within 5 s" in response


def test_a_client_that_sends_too_much_reads_why(service: Any) -> None:
    url = httpx.URL(service.url)
    with send_part(
        (url.host, url.port or 80), 6_000_000, bytes(6_000_000), service.api_key
    ) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


class SlowService:
    """A service that never completes a segmentation, or fails immediately."""

    key_digest: str | None = None
    stack_size = 1

    def __init__(self, fails: bool, timeout_s: float = 60.0) -> None:
        self.settings = Serve(request_timeout_s=timeout_s)
        self.stats = RequestStats()
        self.limiter = ConcurrencyLimiter(max_slices=1, max_queued=1, max_bytes=10**6)
        self.has_started = asyncio.Event()
        self._fails = fails

    @property
    def loaded_model(self) -> LoadedModel:
        raise NotImplementedError

    async def segment(
        self, image: np.ndarray, probability: bool
    ) -> tuple[Segmentation, LoadedModel]:
        self.has_started.set()
        if self._fails:
            raise RuntimeError("an error of the service")
        return await asyncio.get_running_loop().create_future()

    async def status(self) -> ServiceStatus:
        raise NotImplementedError

    async def metrics(self) -> bytes:
        raise NotImplementedError


def client_of(service: Service) -> httpx.AsyncClient:
    """A client of an application in this process."""
    transport = httpx.ASGITransport(build_app(service), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def test_a_slice_is_not_decoded_above_the_concurrency_limit(slice_png: bytes) -> None:
    async def run() -> None:
        service = SlowService(fails=True)
        async with client_of(service) as client:
            await service.limiter.slices.acquire()
            request = asyncio.create_task(client.post(SEGMENT, content=slice_png, headers=PNG))
            done, _ = await asyncio.wait([request], timeout=0.5)
            assert not done
            assert not service.has_started.is_set()
            service.limiter.slices.release()
            assert (await request).status_code == 500

    asyncio.run(run())


@pytest.mark.parametrize(("fails", "errors"), [(False, 0), (True, 1)])
def test_a_client_that_disconnects_is_not_an_error(
    slice_png: bytes, fails: bool, errors: int
) -> None:
    async def run() -> RequestStats:
        service = SlowService(fails)
        async with client_of(service) as client:
            request = asyncio.create_task(client.post(SEGMENT, content=slice_png, headers=PNG))
            await service.has_started.wait()
            if fails:
                assert (await request).status_code == 500
            else:
                request.cancel()
                await asyncio.wait([request])
        assert not service.limiter.slices.locked()
        return service.stats

    stats = asyncio.run(run())
    assert (stats.requests, stats.rejected, stats.errors) == (1, 0, errors)
    assert not stats.latencies


def test_a_request_above_the_time_limit_is_rejected(slice_png: bytes) -> None:
    async def run() -> tuple[httpx.Response, SlowService]:
        service = SlowService(fails=False, timeout_s=0.2)
        async with client_of(service) as client:
            return await client.post(SEGMENT, content=slice_png, headers=PNG), service

    response, service = asyncio.run(run())
    assert response.status_code == 408
    assert response.json()["error"].startswith("The request was not answered within 0.2 s")
    assert (service.stats.rejected, service.limiter.slices.locked()) == (1, False)


def test_a_request_of_a_disconnected_client_is_not_segmented(slice_png: bytes) -> None:
    async def run() -> SlowService:
        service = SlowService(fails=False)
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

    service = asyncio.run(run())
    assert not service.has_started.is_set()
    assert (service.stats.requests, service.stats.rejected, service.stats.errors) == (1, 0, 0)


class LocalService:
    """A service that predicts in this process, and may load another version before it does."""

    key_digest: str | None = None

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.settings = Serve(model="bright@production")
        self.stats = RequestStats()
        self.limiter = ConcurrencyLimiter(max_slices=1, max_queued=1, max_bytes=10**6)
        self.manager = ModelManager("bright@production", str(folder), threads=1, gpu=False)
        self.manager.load()
        self.registry = registry
        self.next_version: int | None = None

    @property
    def loaded_model(self) -> LoadedModel:
        return self.manager.current

    @property
    def stack_size(self) -> int:
        return self.loaded_model.predictor.manifest.stack_size

    async def segment(
        self, image: np.ndarray, probability: bool
    ) -> tuple[Segmentation, LoadedModel]:
        if self.next_version:
            self.registry.promote("bright", self.next_version, "production")
            self.manager.refresh()
            self.next_version = None
        model = self.manager.current
        return model.predictor.predict_batch([image], probability=True)[0], model

    async def status(self) -> ServiceStatus:
        raise NotImplementedError

    async def metrics(self) -> bytes:
        raise NotImplementedError


@pytest.fixture
def stack_service(make_bundle: Any, bright_bundle: Any, tmp_path: Path) -> LocalService:
    """bright@production at version 2 of 2, which has a neighbour on each side."""
    registry = Registry(open_storage(str(tmp_path)))
    registry.register("bright", bright_bundle.url)
    registry.register("bright", make_bundle(0.5, neighbours=1).url)
    registry.promote("bright", 2, "production")
    return LocalService(registry, tmp_path)


def bright_columns(first: int) -> np.ndarray:
    """A slice with ten bright columns."""
    image = np.full((64, 64), 20, np.uint8)
    image[:, first : first + 10] = 220
    return image


STACK = [bright_columns(first) for first in (5, 25, 45)]


def send_image(service: LocalService, data: bytes) -> tuple[int, Any]:
    """The status of the response, and the bright columns of the mask or the error."""

    async def run() -> httpx.Response:
        async with client_of(service) as client:
            return await client.post(SEGMENT, content=data, headers={"Content-Type": "image/tiff"})

    response = asyncio.run(run())
    if response.status_code != 200:
        return response.status_code, response.json()["error"]
    columns = np.flatnonzero(decode_mask(response.content, "mask").any(axis=0))
    return 200, round(float(columns.mean()))


def test_a_tiff_of_several_slices_is_a_stack(stack_service: LocalService) -> None:
    # The network of this bundle marks what is bright in the last slice.
    assert send_image(stack_service, encode_stack(STACK)) == (200, 50)
    form = {"image": ("stack.tif", encode_stack(STACK), "image/tiff")}

    async def run() -> httpx.Response:
        async with client_of(stack_service) as client:
            return await client.post(SEGMENT, files=form, headers=AS_JSON)

    assert asyncio.run(run()).json()["classes"][0]["bounding_box"]["x"] in (44, 45, 46)


def test_a_single_slice_is_repeated(stack_service: LocalService) -> None:
    color = cv2.merge([STACK[0]] * 3)
    for data in (encode_image(".png", STACK[0]), encode_image(".png", color)):
        assert send_image(stack_service, data) == (200, 10)


def test_a_wrong_number_of_slices_is_rejected(stack_service: LocalService) -> None:
    status, error = send_image(stack_service, encode_stack(STACK[:2]))
    assert (status, error) == (
        400,
        "The image contains 2 images: the network needs one slice, or 3 slices that follow each "
        "other.",
    )
    status, error = send_image(stack_service, encode_stack([*STACK, *STACK]))
    assert (status, error) == (
        400,
        "The TIFF image contains more than 3 images: save one slice, or 3 slices that follow each "
        "other.",
    )
    small = np.zeros((9, 8), np.uint8)
    status, error = send_image(stack_service, encode_stack([*STACK[:2], small]))
    assert status == 400
    assert error.startswith("Image 3 of the image has 8 x 9 pixels, but its neighbour image 1")


def test_all_slices_of_a_stack_count_for_the_limit_of_pixels(stack_service: LocalService) -> None:
    stack_service.settings = Serve(max_pixels=2 * 64 * 64)
    status, error = send_image(stack_service, encode_stack(STACK))
    assert (status, error) == (413, "The TIFF image has 12288 pixels, more than 8192.")
    assert send_image(stack_service, encode_image(".png", STACK[0])) == (200, 10)


def test_a_model_that_is_loaded_meanwhile_decides_what_the_image_is(
    stack_service: LocalService,
) -> None:
    stack_service.next_version = 1
    status, error = send_image(stack_service, encode_stack(STACK))
    assert status == 400
    assert "contains several images" in error
    assert stack_service.loaded_model.version.version == 1
    stack_service.next_version = 2
    # Read as color by the first model, and as grey for the other one.
    assert send_image(stack_service, encode_image(".png", cv2.merge(STACK)))[0] == 200
    assert stack_service.loaded_model.version.version == 2


def test_the_model_says_how_many_neighbours_it_has(stack_service: LocalService) -> None:
    async def run() -> httpx.Response:
        async with client_of(stack_service) as client:
            return await client.get("/v1/model")

    assert asyncio.run(run()).json()["neighbours"] == 1
