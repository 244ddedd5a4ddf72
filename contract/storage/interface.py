"""The interface of a store of small objects.

Keys are relative and use forward slashes on every system ("bundle/weights.npz"). An object is
written atomically: to a temporary name, which no listing shows, and then renamed (an S3 put is
atomic by itself).
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contract.errors import StorageError
from contract.temp_folders import folder_prefix

# The prefix of all temporary names, so that every listing can exclude them.
TEMP_PREFIX = ".partial-"
_THREADS = 8


@dataclass(frozen=True)
class ObjectInfo:
    """An object of a store: its key, size in bytes, and time of last change (ISO, UTC)."""

    key: str
    size: int
    modified: str


class Storage(ABC):
    """The store of runs, datasets, bundles and the registry; made by open_storage.

    Every method raises StorageError, with the full address and the remedy, if the store cannot be
    reached or denies access. Safe to use from several threads, and to pickle.
    """

    url: str
    """The absolute folder, or s3://bucket/prefix without a slash at its end."""
    num_readers: int
    """How many threads read and decode many objects: for an object of S3, they mostly wait."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The object's content; NotFoundError if it does not exist."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write an object atomically, replacing an existing one."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if none has this key; exactly one of several callers gets True."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether an object with this key exists (a folder is not an object)."""

    @abstractmethod
    def list_objects(self, prefix: str = "") -> list[ObjectInfo]:
        """Every object below a prefix, at any depth, sorted by key.

        prefix: complete parts of a key ("runs/demo"), never a part of a name. The returned keys are
        relative to this store, including the prefix, so that read(info.key) works.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; it need not exist."""

    @abstractmethod
    def child(self, prefix: str) -> "Storage":
        """The same store with a prefix: its keys are relative to it."""

    @abstractmethod
    def upload_file(self, key: str, source: Path) -> None:
        """Upload a local file of any size without loading it into memory."""

    @abstractmethod
    def download_file(self, key: str, target: Path) -> None:
        """Get an object of any size as a local file, atomically; NotFoundError if it is missing."""

    def copy_object(self, key: str, source: "Storage", source_key: str) -> None:
        """Copy an object of another store, of any size; NotFoundError if it is missing.

        Stores of the same kind copy it without a detour over this machine, if they can.
        """
        with tempfile.TemporaryDirectory(prefix=folder_prefix("copy")) as folder:
            file = Path(folder) / "object"
            source.download_file(source_key, file)
            self.upload_file(key, file)

    def upload_folder(self, folder: Path, last: str | None = None) -> None:
        """Upload every file below a local folder under its relative path.

        last: the relative path of the file that is uploaded after all others, so that its
        existence implies that the others are complete.
        """
        if not folder.is_dir():
            raise StorageError(f"there is no folder {folder} to copy to {self.url}.")
        names = [name for name in iterate_files(folder) if name != last]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="storage") as pool:
            # A list, so that the first error is raised.
            list(pool.map(lambda name: self.upload_file(name, folder / name), names))
        if last is not None:
            self.upload_file(last, folder / last)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)


def validate_key(key: str) -> str:
    """The key without slashes at its ends; StorageError if it would leave the store."""
    trimmed = key.rstrip("/")
    parts = PurePosixPath(trimmed).parts
    if not parts or trimmed != "/".join(parts) or ".." in parts or parts[0] == "/":
        raise StorageError(
            f"{key!r} is not a valid key: give a relative path without .. or empty parts."
        )
    return trimmed


def iterate_files(folder: Path) -> Iterator[str]:
    """Relative paths (with /) of all files below a folder, following links; not temporary ones."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not _is_symlink_loop(Path(parent, name))]
        for name in names:
            if not name.startswith(TEMP_PREFIX):
                yield Path(parent, name).relative_to(folder).as_posix()


def _is_symlink_loop(folder: Path) -> bool:
    """Whether a folder is a link to one that contains it, which would be walked indefinitely."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
