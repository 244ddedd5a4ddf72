"""A folder and a bucket have the same behavior behind the interface."""

import os
import pickle
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import NotFoundError, StorageError
from contract.storage import Storage, open_storage, validate_key
from tests.folders import write_tree

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


class TestFolders:
    @BOTH
    def test_upload_keeps_the_tree(self, store: Storage, tmp_path: Path) -> None:
        source = write_tree(tmp_path / "source", "a", "b/c/d", "manifest.json")
        store.child("x").upload_folder(source, last="manifest.json")
        assert keys(store.child("x")) == ["a", "b/c/d", "manifest.json"]
        assert store.read("x/b/c/d") == b"b/c/d"

    @BOTH
    def test_the_last_file_waits_for_all_others(self, store: Storage, tmp_path: Path) -> None:
        source = write_tree(tmp_path / "source", "a", "b", "last")
        (source / "b").unlink()
        (source / "b").symlink_to(tmp_path / "nowhere")
        with pytest.raises(StorageError):
            store.upload_folder(source, last="last")
        assert not store.exists("last")

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


class TestCopies:
    @BOTH
    @pytest.mark.parametrize("kind", ["same", "other"])
    def test_an_object_is_copied_from_a_store_of_either_kind(
        self, store: Storage, kind: str, tmp_path: Path
    ) -> None:
        other = open_storage(str(tmp_path / "other"))
        source = store.child("source") if kind == "same" else other
        source.write("a/b", b"1")
        store.copy_object("c/d", source, "a/b")
        assert store.read("c/d") == source.read("a/b") == b"1"

    @BOTH
    def test_a_copy_of_a_missing_object_is_an_error_and_leaves_nothing(
        self, store: Storage, tmp_path: Path
    ) -> None:
        for source in (store, open_storage(str(tmp_path / "other"))):
            with pytest.raises(NotFoundError, match=r"there is no (file|object) .*/a/b[.,]"):
                store.copy_object("c/d", source, "a/b")
        assert store.list_objects() == []


class TestAddresses:
    @BOTH
    def test_a_store_can_be_sent_to_a_worker(self, store: Storage) -> None:
        store.write("a", b"1")
        copy = pickle.loads(pickle.dumps(store))
        assert copy == store
        assert copy.read("a") == b"1"

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
