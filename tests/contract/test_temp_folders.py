"""Temporary folders of processes that have ended are found, and no others."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from contract.temp_folders import find_abandoned, folder_prefix


def test_only_folders_of_ended_processes_are_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tempfile.mkdtemp(prefix=folder_prefix("bundle"))
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    pid = process.stdout.strip()
    abandoned = {tmp_path / f"segfleet-{kind}{pid}-ab_c1" for kind in ("", "tune-")}
    for folder in abandoned:
        folder.mkdir()
    for name in (f"segfleet-slices-{pid}", f"other-{pid}-abc"):
        (tmp_path / name).mkdir()
    (tmp_path / f"segfleet-{pid}-file").write_bytes(b"")
    assert set(find_abandoned(str(tmp_path))) == abandoned
    assert Path(own).is_dir()
