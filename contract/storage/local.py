"""A store of small objects: a folder, or a prefix of an S3 bucket, behind one set of verbs.

Keys are relative and use forward slashes on every system ("bundle/weights.npz"). An object is
written whole or not at all: to a temporary name first, which no listing shows, then renamed (S3
puts are whole by themselves).
"""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import final
from uuid import uuid4

from contract.errors import NotFoundError, StorageError

# One temporary name for all, so that every listing can leave them out.
TEMP_PREFIX = ".partial-"
_THREADS = 8


@dataclass(frozen=True)
class ObjectInfo:
    """An object of a store: its key there, size in bytes, time of last change (ISO, UTC)."""

    key: str
    size: int
    modified: str


class Storage(ABC):
    """Where runs, datasets, bundles and the registry lie; made by open_storage.

    Every method raises StorageError, with the full address and the remedy, where the store
    cannot be reached or refuses. Safe to use from several threads, and to pickle.
    """

    url: str
    """The absolute folder, or s3://bucket/prefix without a slash at its end."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The object's content; MissingError where there is none."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Put an object, replacing an earlier one of this key, whole or not at all."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Put an object only where none has this key; of several callers one gets True."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is an object of this key (a folder is none)."""

    @abstractmethod
    def list_objects(self, prefix: str = "") -> list[ObjectInfo]:
        """Every object below a prefix, at any depth, sorted by key; none is an empty list.

        prefix: whole parts of a key ("runs/demo"), never a part of a name. The keys returned are
        relative to this store, prefix included, so that read(entry.key) works.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; it need not exist."""

    @abstractmethod
    def child(self, prefix: str) -> "Storage":
        """The same store, deeper: its keys are relative to the prefix."""

    @abstractmethod
    def upload_file(self, key: str, source: Path) -> None:
        """Put a local file as an object, of any size, without holding it in memory."""

    @abstractmethod
    def download_file(self, key: str, target: Path) -> None:
        """Get an object, of any size, as a local file, whole or not at all; else MissingError."""

    def upload_folder(self, folder: Path, last: str | None = None) -> None:
        """Put every file below a local folder under its relative path.

        last: the relative path of the file that is put when all others are there, so that its
        presence says that the rest is complete.
        """
        if not folder.is_dir():
            raise StorageError(f"there is no folder {folder} to copy to {self.url}.")
        names = [name for name in _files(folder) if name != last]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="storage") as pool:
            # As a list, for the first error to be raised.
            list(pool.map(lambda name: self.upload_file(name, folder / name), names))
        if last is not None:
            self.upload_file(last, folder / last)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)


@final
class LocalStorage(Storage):
    """A folder of this machine, or one that all machines mount; it is made when first written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)

    def read(self, key: str) -> bytes:
        with translate_errors("read", self._file(key)) as file:
            return file.read_bytes()

    def write(self, key: str, data: bytes) -> None:
        with translate_errors("write", self._file(key)) as file, atomic_path(file) as partial:
            _write_through(partial, data)
            partial.replace(file)

    def create(self, key: str, data: bytes) -> bool:
        with translate_errors("write", self._file(key)) as file, atomic_path(file) as partial:
            _write_through(partial, data)
            try:
                # A link is the one call that both refuses an existing name and shows a whole file.
                file.hardlink_to(partial)
            except FileExistsError:
                return False
            return True

    def exists(self, key: str) -> bool:
        with translate_errors("read", self._file(key)) as file:
            return file.is_file()

    def list_objects(self, prefix: str = "") -> list[ObjectInfo]:
        top = self._file(prefix) if prefix else self.path
        with translate_errors("list", top):
            found = [self._entry(top / name) for name in _files(top)]
        return sorted((e for e in found if e is not None), key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        with translate_errors("delete", self._file(key)) as file:
            file.unlink(missing_ok=True)

    def child(self, prefix: str) -> "LocalStorage":
        return LocalStorage(self._file(prefix))

    def upload_file(self, key: str, source: Path) -> None:
        with translate_errors("write", self._file(key)) as file:
            _copy(source, file)

    def download_file(self, key: str, target: Path) -> None:
        with translate_errors("read", self._file(key)) as file:
            _copy(file, target)

    def _file(self, key: str) -> Path:
        return self.path / validate_key(key)

    def _entry(self, file: Path) -> ObjectInfo | None:
        """The listing of a file; None where it went away meanwhile."""
        try:
            stat = file.stat()
        except FileNotFoundError:
            return None
        modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat()
        return ObjectInfo(file.relative_to(self.path).as_posix(), stat.st_size, modified)


def open_storage(url: str) -> Storage:
    """The store at a folder path (~ and file:// allowed) or at s3://bucket/prefix.

    Nothing is made and nothing is asked of the store yet. Raises StorageError for any other kind
    of address.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalStorage(Path(url).expanduser().absolute())
    if scheme == "file" and rest.startswith("/"):
        return LocalStorage(Path(rest))
    if scheme == "s3":
        # Here, so that whoever stays in folders does not wait for boto3 (0.2 s).
        from contract.storage.s3 import open_s3

        return open_s3(url)
    raise StorageError(f"{url} is no storage address: give a folder or s3://bucket/prefix.")


def validate_key(key: str) -> str:
    """The key, slashes at its ends removed; StorageError where it would leave the store."""
    trimmed = key.rstrip("/")
    parts = PurePosixPath(trimmed).parts
    if not parts or trimmed != "/".join(parts) or ".." in parts or parts[0] == "/":
        raise StorageError(f"{key!r} is no key: give a relative path without .. or empty parts.")
    return trimmed


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary name in the target's folder, which is made; what is left there is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{TEMP_PREFIX}{uuid4().hex}")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _write_through(file: Path, data: bytes) -> None:
    """Write to the disk itself, so that a rename cannot outlive its content in a power cut."""
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all; onto itself is nothing to do."""
    if target.exists() and target.samefile(source):
        return
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)
        partial.replace(target)


def _files(folder: Path) -> Iterator[str]:
    """Relative paths (with /) of all files below a folder, through links, but temporary ones."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not _is_symlink_loop(Path(place, name))]
        for name in names:
            if not name.startswith(TEMP_PREFIX):
                yield Path(place, name).relative_to(folder).as_posix()


def _is_symlink_loop(folder: Path) -> bool:
    """Whether a folder is a link to one that holds it, which would be walked for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


@contextmanager
def translate_errors(verb: str, path: Path) -> Iterator[Path]:
    """Turn the system's errors on a path into one sentence."""
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
        "PermissionError": "; check who may use the folder",
        "NotADirectoryError": "; one of the folders in its path is a file",
        "FileExistsError": "; one of the folders in its path is a file",
    }.get(type(error).__name__, "")
    return f"cannot {verb} {path}: {error.strerror or error}{remedy}."
