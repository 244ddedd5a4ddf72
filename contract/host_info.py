"""Where a result was made: commit, versions and machine, for manifests and reports."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TypedDict

_TIMEOUT_S = 20.0


class HostInfo(TypedDict):
    """Plain values, fit for JSON."""

    commit: str | None
    """Of the segfleet checkout, "-dirty" behind it where tracked files differ; None outside one."""
    python: str
    ray: str | None
    tensorflow: str | None
    """None where the package is not installed."""
    machine: str
    """The processor's model, its cores, and GPUs if there are any."""
    cpu: str
    cores: int
    """Cores this process may use."""
    gpus: list[str]
    platform: str


def host_info() -> HostInfo:
    """What is known of this process's code and machine; starts neither Ray nor TensorFlow."""
    cpu, cores, gpus = cpu_model(), cpu_count(), gpu_names()
    return HostInfo(
        commit=git_commit(Path(__file__).parents[1]),
        python=platform.python_version(),
        ray=package_version("ray"),
        tensorflow=package_version("tensorflow"),
        machine=", ".join([cpu, f"{cores} core{'s' if cores > 1 else ''}", *gpus]),
        cpu=cpu,
        cores=cores,
        gpus=gpus,
        platform=platform.platform(),
    )


def git_commit(checkout: Path) -> str | None:
    """The commit checked out in a folder, "-dirty" behind it where tracked files differ.

    None where the folder is not the top of a checkout: segfleet installed inside another
    project's checkout must not name that project's commit.
    """
    top = _run_command("git", "-C", str(checkout), "rev-parse", "--show-toplevel")
    if top is None or Path(top) != checkout.resolve():
        return None
    return _run_command(
        "git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"
    )


def package_version(package: str) -> str | None:
    """Version of an installed package, read without importing it; None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it, else its architecture."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Cores this process may use; all of the machine's where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs the driver shows, one each; none without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    said = _run_command("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [name.strip() for name in (said or "").splitlines() if name.strip()]


def _run_command(*command: str) -> str | None:
    """What a program printed; None where it is missing, fails or says nothing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
