"""The processes of this test run, as Linux tells of them; those of other runs are left alone."""

import os
from collections.abc import Iterator
from pathlib import Path


def titled(title: str, below: int | None = None) -> list[int]:
    """Ids of the processes below one (absent: this one) whose command line begins with a title."""
    top = os.getpid() if below is None else below
    parents: dict[int, int] = {}
    processes: list[int] = []
    for process in _processes():
        folder = Path("/proc") / str(process)
        try:
            # pid (name) state parent …, and a name may hold anything.
            parents[process] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended in between
            continue
        if line.startswith(title.encode()):
            processes.append(process)
    return [process for process in processes if top in _above(process, parents)]


def resident_bytes(process: int) -> int:
    """Memory that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _above(process: int, parents: dict[int, int]) -> Iterator[int]:
    """A process's parent, its parent's parent, and so on."""
    while parent := parents.get(process):
        yield parent
        process = parent
