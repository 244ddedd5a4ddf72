"""Uploading a folder of slices to storage, several files at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from contract.errors import DataError
from contract.storage import ObjectInfo, Storage

_THREADS = 8


def find_changed_files(folder: Path, destination: Storage) -> list[Path]:
    """The files below a folder that are missing at the destination or have changed, sorted.

    Raises DataError if the folder contains no file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name the folder of your slices.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise DataError(f"{folder} contains no files to upload: name the folder of your slices.")
    uploaded = {info.key: info for info in destination.list_objects()}
    return [path for path in files if _has_changed(path, uploaded.get(_key(folder, path)))]


def _has_changed(path: Path, info: ObjectInfo | None) -> bool:
    """Whether a file differs from what was uploaded: in size, or written later."""
    if info is None:
        return True
    file, uploaded_at = path.stat(), datetime.fromisoformat(info.modified).timestamp()
    # S3 reports whole seconds.
    return file.st_size != info.size or int(file.st_mtime) > uploaded_at


def upload_files(
    folder: Path, files: list[Path], destination: Storage, on_file: Callable[[str], None]
) -> None:
    """Upload files below a folder under their relative paths; on_file is called with each name."""

    def upload(path: Path) -> None:
        destination.upload_file(_key(folder, path), path)
        on_file(path.name)

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(upload, files))


def _key(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
