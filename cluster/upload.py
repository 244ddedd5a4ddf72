"""Bringing a folder of slices into storage, several files at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from contract.cli.app import ProgressBar
from contract.errors import DataError
from contract.storage import ObjectInfo, Storage

_THREADS = 8


def missing(folder: Path, destination: Storage) -> list[Path]:
    """The files below a folder that the destination lacks, or has as they were before, sorted.

    Raises DataError where there is no file at all.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise DataError(f"{folder} holds no files to upload.")
    there = {entry.key: entry for entry in destination.list_objects()}
    return [path for path in files if _has_changed(path, there.get(_key(folder, path)))]


def _has_changed(path: Path, entry: ObjectInfo | None) -> bool:
    """Whether a file is not what was sent: its size differs, or it was written later."""
    if entry is None:
        return True
    file, sent = path.stat(), datetime.fromisoformat(entry.modified).timestamp()
    # S3 tells whole seconds.
    return file.st_size != entry.size or int(file.st_mtime) > sent


def upload(folder: Path, files: list[Path], destination: Storage, advance: ProgressBar) -> None:
    """Write files below a folder to the same places below a destination."""

    def send(path: Path) -> None:
        destination.upload_file(_key(folder, path), path)
        advance(note=path.name)

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(send, files))


def _key(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
