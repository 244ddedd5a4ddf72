"""Folders and S3 behave alike; errors are sentences."""

import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.s3.models import s3_backends

from contract.errors import NotFoundError, StorageError
from contract.storage import (
    TEMP_PREFIX,
    LocalStorage,
    Storage,
    atomic_path,
    open_storage,
    validate_key,
)

BOTH = pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)


def keys(store: Storage, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.list_objects(prefix)]


class TestObjects:
    @BOTH
    def test_what_is_written_is_read(self, store: Storage) -> None:
        store.write("a/b.bin", b"\x00one")
        store.write("a/b.bin", b"\x00two")
        assert store.read("a/b.bin") == b"\x00two"
        assert store.exists("a/b.bin")

    @BOTH
    def test_a_folder_and_the_start_of_a_name_are_no_objects(self, store: Storage) -> None:
        store.write("a/b.bin", b"")
        assert not store.exists("a")
        assert not store.exists("a/b")

    @BOTH
    def test_reading_what_is_missing_names_its_address(self, store: Storage) -> None:
        with pytest.raises(NotFoundError, match=r"there is no (file|object) .*/a/b\.bin\.$"):
            store.read("a/b.bin")

    @BOTH
    def test_create_never_replaces(self, store: Storage) -> None:
        assert store.create("log/1", b"first")
        assert not store.create("log/1", b"second")
        assert store.read("log/1") == b"first"

    @BOTH
    def test_of_many_creating_at_once_one_wins(self, store: Storage) -> None:
        wins = at_once(8, lambda worker: store.create("log/1", str(worker).encode()))
        assert wins.count(True) == 1
        assert store.read("log/1") == str(wins.index(True)).encode()

    @BOTH
    def test_deleting_needs_no_object(self, store: Storage) -> None:
        store.write("a", b"")
        store.delete("a")
        store.delete("a")
        assert not store.exists("a")

    @BOTH
    @pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "./a"])
    def test_a_key_cannot_leave_the_store(self, store: Storage, key: str) -> None:
        for act in (store.read, store.exists, store.delete, lambda key: store.write(key, b"")):
            with pytest.raises(StorageError, match="is not a valid key"):
                act(key)


@given(st.text(alphabet="ab./\\ ", max_size=12))
def test_checked_keys_stay_inside(key: str) -> None:
    try:
        trimmed = validate_key(key)
    except StorageError:
        return
    inside = os.path.normpath(f"/store/{trimmed}")
    assert inside == f"/store/{trimmed}"


class TestListing:
    @BOTH
    def test_a_store_that_does_not_exist_yet_is_empty(self, store: Storage) -> None:
        assert store.list_objects() == []
        assert store.child("deeper").list_objects() == []

    @BOTH
    def test_entries_are_sorted_with_size_and_time(self, store: Storage) -> None:
        for key in ("b", "a/c/d", "a/b"):
            store.write(key, b"123")
        entries = store.list_objects()
        assert [(entry.key, entry.size) for entry in entries] == [
            ("a/b", 3),
            ("a/c/d", 3),
            ("b", 3),
        ]
        age = datetime.now(UTC) - datetime.fromisoformat(entries[0].modified)
        assert abs(age.total_seconds()) < 60

    @BOTH
    def test_a_prefix_is_whole_names_and_stays_in_the_keys(self, store: Storage) -> None:
        for key in ("run/a", "run2/a", "run/b/c"):
            store.write(key, b"")
        assert keys(store, "run") == keys(store, "run/") == ["run/a", "run/b/c"]
        assert keys(store.child("run")) == ["a", "b/c"]
        assert store.child("run").child("b").read("c") == b""

    def test_a_thousand_and_more_are_listed(self, s3: str) -> None:
        store = open_storage(s3)
        # Straight into the server, as 1003 requests would take 10 s.
        backend = s3_backends["123456789012"]["aws"]
        for number in range(1003):
            backend.put_object(s3.removeprefix("s3://"), f"many/{number:04d}", b"")
        assert len(store.list_objects("many")) == 1003

    def test_temporary_files_never_show(self, tmp_path: Path) -> None:
        with atomic_path(tmp_path / "sub" / "file") as partial:
            partial.write_bytes(b"half")
            assert partial.name.startswith(TEMP_PREFIX)
            assert open_storage(str(tmp_path)).list_objects() == []
        assert list((tmp_path / "sub").iterdir()) == []

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "file").touch()
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
        (tmp_path / "here" / "circle").symlink_to(tmp_path)
        (tmp_path / "here" / "broken").symlink_to(tmp_path / "nowhere")
        assert keys(LocalStorage(tmp_path / "here")) == ["link/file"]

    def test_empty_objects_that_stand_for_folders_are_left_out(self, s3: str) -> None:
        boto3.client("s3").put_object(Bucket=s3.removeprefix("s3://"), Key="images/", Body=b"")
        assert open_storage(s3).list_objects() == []


class TestFolders:
    @BOTH
    def test_upload_keeps_the_tree(self, store: Storage, tmp_path: Path) -> None:
        source = tree(tmp_path / "source", "a", "b/c/d", "manifest.json")
        store.child("x").upload_folder(source, last="manifest.json")
        assert keys(store.child("x")) == ["a", "b/c/d", "manifest.json"]
        assert store.read("x/b/c/d") == b"b/c/d"

    @BOTH
    def test_the_last_file_waits_for_all_others(self, store: Storage, tmp_path: Path) -> None:
        source = tree(tmp_path / "source", "a", "b", "last")
        (source / "b").unlink()
        (source / "b").symlink_to(tmp_path / "nowhere")
        with pytest.raises(StorageError):
            store.upload_folder(source, last="last")
        assert not store.exists("last")

    def test_a_folder_may_be_its_own_destination(self, tmp_path: Path) -> None:
        source = tree(tmp_path / "source", "a", "last")
        LocalStorage(source).upload_folder(source, last="last")
        assert (source / "a").read_text() == "a"

    @BOTH
    def test_uploading_a_missing_folder_is_rejected(self, store: Storage, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"there is no folder .*nowhere"):
            store.upload_folder(tmp_path / "nowhere")

    @BOTH
    def test_a_large_file_goes_in_parts(self, store: Storage, tmp_path: Path) -> None:
        data = os.urandom(9 * 2**20)
        (tmp_path / "large").write_bytes(data)
        store.upload_file("large", tmp_path / "large")
        store.download_file("large", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data

    @BOTH
    def test_a_download_that_fails_leaves_nothing(self, store: Storage, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="there is no"):
            store.download_file("missing", tmp_path / "target" / "file")
        assert list((tmp_path / "target").iterdir()) == []


class TestAddresses:
    @BOTH
    def test_a_store_can_be_sent_to_a_worker(self, store: Storage) -> None:
        store.write("a", b"1")
        copy = pickle.loads(pickle.dumps(store))
        assert copy == store
        assert copy.read("a") == b"1"

    def test_paths_become_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert open_storage("data").url == str(tmp_path / "data")
        assert open_storage("~/data").url == str(tmp_path / "data")
        assert open_storage(f"file://{tmp_path}/data").url == str(tmp_path / "data")

    def test_slashes_at_the_end_do_not_matter(self, s3: str) -> None:
        assert open_storage(f"{s3}/a/b/").url == f"{s3}/a/b"
        assert open_storage(f"{s3}/").url == s3

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("gs://bucket/prefix", "is not a storage address"),
            ("file://host/path", "is not a storage address"),
            ("s3:///prefix", "does not name a bucket"),
            ("s3://bucket/../other", "is not a valid key"),
        ],
    )
    def test_other_addresses_are_rejected(self, url: str, reason: str) -> None:
        with pytest.raises(StorageError, match=reason):
            open_storage(url)


class TestTrouble:
    def test_a_folder_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        store = open_storage(str(tmp_path / "file"))
        with pytest.raises(StorageError, match=r"cannot write .*/file/a: .*is a file"):
            store.write("a", b"")

    def test_a_write_that_fails_keeps_the_old_object(self, tmp_path: Path) -> None:
        store = open_storage(str(tmp_path))
        store.write("a/b", b"old")
        with pytest.raises(StorageError):
            store.write("a", b"new")
        assert keys(store) == ["a/b"]
        assert list(tmp_path.iterdir()) == [tmp_path / "a"]

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


def at_once(workers: int, act: Callable[[int], bool]) -> list[bool]:
    """What each of several threads got that started in the same moment."""
    barrier, got = threading.Barrier(workers), [False] * workers

    def work(worker: int) -> None:
        barrier.wait()
        got[worker] = act(worker)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def tree(folder: Path, *names: str) -> Path:
    """A folder of small files, each with its own name in it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def forget_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where AWS was never set up and no cloud lends a role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
