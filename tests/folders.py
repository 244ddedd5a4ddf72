"""Folders of small files."""

from pathlib import Path


def write_tree(folder: Path, *names: str) -> Path:
    """A folder of small files, each with its own name in it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder
