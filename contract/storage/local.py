"""A store in a local folder, or in one that all machines mount."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import final
from uuid import uuid4

from contract.errors import NotFoundError, StorageError
from contract.storage.interface import (
    TEMP_PREFIX,
    ObjectInfo,
    Storage,
    iterate_files,
    validate_key,
)


@final
class LocalStorage(Storage):
    """A folder of this machine, or one that all machines mount; created on first write."""

    num_readers = 8

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)

    def read(self, key: str) -> bytes:
        with translate_errors("read", self._file(key)) as file:
            return file.read_bytes()

    def write(self, key: str, data: bytes) -> None:
        with translate_errors("write", self._file(key)) as file, atomic_path(file) as temporary:
            _write_through(temporary, data)
            temporary.replace(file)

    def create(self, key: str, data: bytes) -> bool:
        with translate_errors("write", self._file(key)) as file, atomic_path(file) as temporary:
            _write_through(temporary, data)
            try:
                # Only a hard link fails for an existing name and shows a complete file.
                file.hardlink_to(temporary)
            except FileExistsError:
                return False
            return True

    def exists(self, key: str) -> bool:
        with translate_errors("read", self._file(key)) as file:
            return file.is_file()

    def list_objects(self, prefix: str = "") -> list[ObjectInfo]:
        top = self._file(prefix) if prefix else self.path
        with translate_errors("list", top):
            objects = [self._object_info(top / name) for name in iterate_files(top)]
        return sorted((info for info in objects if info), key=lambda info: info.key)

    def delete(self, key: str) -> None:
        with translate_errors("delete", self._file(key)) as file:
            file.unlink(missing_ok=True)
        # A key has no folders of its own in an object store, so empty ones are not left here.
        for folder in file.parents:
            if folder == self.path or not _remove_if_empty(folder):
                break

    def child(self, prefix: str) -> "LocalStorage":
        return LocalStorage(self._file(prefix))

    def upload_file(self, key: str, source: Path) -> None:
        with translate_errors("write", self._file(key)) as file:
            _copy(source, file)

    def download_file(self, key: str, target: Path) -> None:
        with translate_errors("read", self._file(key)) as file:
            _copy(file, target)

    def copy_object(self, key: str, source: Storage, source_key: str) -> None:
        if isinstance(source, LocalStorage):
            source.download_file(source_key, self._file(key))
        else:
            super().copy_object(key, source, source_key)

    def _file(self, key: str) -> Path:
        return self.path / validate_key(key)

    def _object_info(self, file: Path) -> ObjectInfo | None:
        """The information on a file; None if it was deleted meanwhile."""
        try:
            stat = file.stat()
        except FileNotFoundError:
            return None
        modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat()
        return ObjectInfo(file.relative_to(self.path).as_posix(), stat.st_size, modified)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path in the target's folder, which is created; deleted if it still exists."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMP_PREFIX}{uuid4().hex}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _write_through(file: Path, data: bytes) -> None:
    """Write to disk, so that a rename cannot survive a power failure without its content."""
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _copy(source: Path, target: Path) -> None:
    """Copy a file atomically; copying it onto itself does nothing."""
    if target.exists() and target.samefile(source):
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
        temporary.replace(target)


@contextmanager
def translate_errors(verb: str, path: Path) -> Iterator[Path]:
    """Translate the system's errors on a path into one sentence."""
    try:
        yield path
    except FileNotFoundError as error:
        if verb == "read":
            raise NotFoundError(f"there is no file {path}.") from error
        raise StorageError(_sentence(verb, path, error)) from error
    except OSError as error:
        raise StorageError(_sentence(verb, path, error)) from error


def _sentence(verb: str, path: Path, error: OSError) -> str:
    remedy = {
        "PermissionError": "; check the permissions of the folder",
        "NotADirectoryError": "; one of the folders in its path is a file",
        "FileExistsError": "; one of the folders in its path is a file",
    }.get(type(error).__name__, "")
    return f"cannot {verb} {path}: {error.strerror or error}{remedy}."
