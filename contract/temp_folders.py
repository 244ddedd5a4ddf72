"""Temporary folders that name their process, so that those of ended processes can be deleted.

A process that is killed cannot delete its folders; the next start of a local cluster does.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

_NAME = re.compile(r"segfleet-(?:[a-z]+-)?(\d+)-\w+")


def folder_prefix(kind: str = "") -> str:
    """The prefix of the name of a temporary folder of this process, for the module tempfile.

    kind: what is in the folder, in lower-case letters.
    """
    return f"segfleet-{f'{kind}-' if kind else ''}{os.getpid()}-"


def find_abandoned(*parents: str) -> list[Path]:
    """The temporary folders of this user below some folders whose processes have ended."""
    folders = [
        folder
        for parent in {*parents, tempfile.gettempdir()}
        for folder in Path(parent).glob("segfleet-*")
        if (match := _NAME.fullmatch(folder.name)) and not process_exists(int(match[1]))
    ]
    return [folder for folder in folders if _is_own(folder)]


def process_exists(pid: int) -> bool:
    """Whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def delete_folder(folder: Path) -> None:
    """Delete a folder with its content, as far as possible."""
    shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    try:
        return folder.is_dir() and folder.stat().st_uid == os.getuid()
    except OSError:
        return False
