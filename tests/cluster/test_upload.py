"""A folder goes to S3 once; a second time only what is new."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.upload import find_changed_files
from contract.errors import DataError
from contract.storage import open_storage

ROOT = Path(__file__).parents[2]


def run(folder: Path, destination: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "upload", str(folder), destination],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_folder_is_uploaded_and_then_only_what_is_new(tmp_path: Path, s3: str) -> None:
    for name in ("train/images/a.png", "train/masks/a.png", "b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    assert "uploaded 3 files" in run(tmp_path, f"{s3}/slices")
    storage = open_storage(f"{s3}/slices")
    assert storage.read("train/masks/a.png") == b"train/masks/a.png"
    (tmp_path / "b.png").write_bytes(b"longer than before")
    assert [path.name for path in find_changed_files(tmp_path, storage)] == ["b.png"]
    output = run(tmp_path, f"{s3}/slices")
    assert "uploaded 1 file " in output
    assert "uploading: 1/1 b.png" in output


def test_a_file_that_changed_in_the_same_size_is_sent_again(tmp_path: Path, s3: str) -> None:
    (tmp_path / "a.png").write_bytes(b"before")
    run(tmp_path, f"{s3}/slices")
    storage = open_storage(f"{s3}/slices")
    assert find_changed_files(tmp_path, storage) == []
    (tmp_path / "a.png").write_bytes(b"after!")
    later = time.time() + 2
    os.utime(tmp_path / "a.png", (later, later))
    assert find_changed_files(tmp_path, storage) == [tmp_path / "a.png"]


def test_nothing_to_upload_is_said(tmp_path: Path, s3: str) -> None:
    with pytest.raises(DataError, match="contains no files"):
        find_changed_files(tmp_path, open_storage(s3))
    with pytest.raises(DataError, match="is not a folder"):
        find_changed_files(tmp_path / "nowhere", open_storage(s3))
