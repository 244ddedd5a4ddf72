"""What only a folder does: links, temporary files, and paths that are not folders."""

from pathlib import Path

import pytest

from contract.errors import StorageError
from contract.storage import TEMP_PREFIX, LocalStorage, Storage, atomic_path, open_storage
from tests.folders import write_tree


def keys(store: Storage) -> list[str]:
    return [entry.key for entry in store.list_objects()]


def test_temporary_files_never_show(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "sub" / "file") as partial:
        partial.write_bytes(b"half")
        assert partial.name.startswith(TEMP_PREFIX)
        assert open_storage(str(tmp_path)).list_objects() == []
    assert list((tmp_path / "sub").iterdir()) == []


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
    (tmp_path / "here" / "circle").symlink_to(tmp_path)
    (tmp_path / "here" / "broken").symlink_to(tmp_path / "nowhere")
    assert keys(LocalStorage(tmp_path / "here")) == ["link/file"]


def test_a_deleted_object_leaves_no_empty_folders(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path / "store")
    for key in ("a/b/one", "a/b/two", "c/three"):
        store.write(key, b"data")
    store.delete("a/b/one")
    assert keys(store) == ["a/b/two", "c/three"]
    store.delete("a/b/two")
    store.delete("c/three")
    # The folder of the storage itself is kept.
    assert list(tmp_path.rglob("*")) == [tmp_path / "store"]


def test_a_folder_may_be_its_own_destination(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", "a", "last")
    LocalStorage(source).upload_folder(source, last="last")
    assert (source / "a").read_text() == "a"


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_storage("data").url == str(tmp_path / "data")
    assert open_storage("~/data").url == str(tmp_path / "data")
    assert open_storage(f"file://{tmp_path}/data").url == str(tmp_path / "data")


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = open_storage(str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"cannot write .*/file/a: .*is a file"):
        store.write("a", b"")


def test_a_write_that_fails_keeps_the_old_object(tmp_path: Path) -> None:
    store = open_storage(str(tmp_path))
    store.write("a/b", b"old")
    with pytest.raises(StorageError):
        store.write("a", b"new")
    assert keys(store) == ["a/b"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
