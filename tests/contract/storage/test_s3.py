"""What only a bucket does: long listings, AWS settings, and a network that fails."""

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import boto3
import pytest
from moto.s3.models import s3_backends

from contract.errors import StorageError
from contract.storage import open_storage


def test_a_thousand_and_more_are_listed(s3: str) -> None:
    store = open_storage(s3)
    # Straight into the server, as 1003 requests would take 10 s.
    backend = s3_backends["123456789012"]["aws"]
    for number in range(1003):
        backend.put_object(s3.removeprefix("s3://"), f"many/{number:04d}", b"")
    assert len(store.list_objects("many")) == 1003


def test_empty_objects_that_stand_for_folders_are_left_out(s3: str) -> None:
    boto3.client("s3").put_object(Bucket=s3.removeprefix("s3://"), Key="images/", Body=b"")
    assert open_storage(s3).list_objects() == []


def test_slashes_at_the_end_do_not_matter(s3: str) -> None:
    assert open_storage(f"{s3}/a/b/").url == f"{s3}/a/b"
    assert open_storage(f"{s3}/").url == s3


class TestTrouble:
    def test_a_missing_bucket(self, s3_server: str, tmp_path: Path) -> None:
        store = open_storage("s3://no-such-bucket/x")
        (tmp_path / "file").touch()
        acts = (
            lambda: store.read("a"),
            lambda: store.write("a", b""),
            lambda: store.create("a", b""),
            lambda: store.exists("a"),
            lambda: store.list_objects(),
            lambda: store.delete("a"),
            lambda: store.upload_file("a", tmp_path / "file"),
        )
        for act in acts:
            with pytest.raises(StorageError, match=r"no bucket no-such-bucket .*: create it"):
                act()
        with pytest.raises(StorageError, match="or no such bucket"):
            store.download_file("a", tmp_path / "copy")

    def test_no_credentials(self, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        forget_credentials(tmp_path, monkeypatch)
        with pytest.raises(StorageError, match=r"no AWS credentials .*s3://.*/a: set AWS_ACCESS"):
            open_storage(s3).read("a")

    def test_an_unknown_profile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "no one")
        with pytest.raises(StorageError, match=r"cannot use s3://bucket: .*no one"):
            open_storage("s3://bucket")

    def test_an_unreachable_endpoint(self, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match=f"cannot reach .*{address}.*AWS_ENDPOINT_URL"):
            open_storage(s3).list_objects()

    def test_a_malformed_endpoint(self, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
        with pytest.raises(StorageError, match=r"cannot use s3://.*: Invalid endpoint"):
            open_storage(s3)


class TestFickleNetwork:
    """A proxy before the S3 server spoils answers; the store must not notice."""

    def test_a_body_that_breaks_off_is_requested_again(self, s3: str, proxy: "Proxy") -> None:
        store = open_storage(s3)
        store.write("a", b"x" * 1000)
        proxy.break_off = 2
        assert store.read("a") == b"x" * 1000
        assert proxy.break_off == 0

    def test_a_body_that_always_breaks_off_is_an_error(self, s3: str, proxy: "Proxy") -> None:
        store = open_storage(s3)
        store.write("a", b"x" * 1000)
        proxy.break_off = 100
        with pytest.raises(StorageError, match=r"s3://.*/a"):
            store.read("a")

    def test_an_own_object_is_known_when_its_answer_was_lost(self, s3: str, proxy: "Proxy") -> None:
        store = open_storage(s3)
        proxy.lose = 1
        assert store.create("log/1", b"mine")
        assert proxy.lose == 0
        assert not store.create("log/1", b"mine")
        assert store.read("log/1") == b"mine"


class Proxy(ThreadingHTTPServer):
    """Hands requests on to the S3 server, and spoils some of the answers."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        self.target = target.removeprefix("http://")
        self.break_off = 0
        """How many answers to GET are still to end in the middle of their body."""
        self.lose = 0
        """How many answers to PUT are still to be lost altogether."""
        super().__init__(("127.0.0.1", 0), Passing)


class Passing(BaseHTTPRequestHandler):
    """One request through the proxy."""

    def pass_on(self) -> None:
        """Ask the S3 server, and answer what it answers, unless it is to be spoiled."""
        proxy = cast(Proxy, self.server)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        link = HTTPConnection(proxy.target)
        link.request(self.command, self.path, body, dict(self.headers.items()))
        answer = link.getresponse()
        data = answer.read()
        link.close()
        if self.command == "PUT" and proxy.lose:
            proxy.lose -= 1
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and proxy.break_off:
            proxy.break_off -= 1
            data = data[: len(data) // 2]
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def proxy(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that this process takes for its S3 server."""
    with Proxy(s3_server) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        yield proxy
        proxy.shutdown()
        thread.join()


def forget_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where AWS was never set up and no cloud lends a role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
