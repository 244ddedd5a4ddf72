"""Where a result was made: commit, versions and machine, for manifests and reports."""

import math
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

# pydantic does not accept typing.TypedDict before Python 3.12.
from typing_extensions import TypedDict

COMMIT_FILE = Path(__file__).with_name("commit.txt")
"""The commit of code that was shipped without its checkout, as that of a job is."""
_TIMEOUT_S = 20.0


class HostInfo(TypedDict):
    """Plain values, fit for JSON."""

    commit: str | None
    """Of the segfleet checkout, "-dirty" behind it where tracked files differ; None if unknown."""
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
        commit=code_commit(),
        python=platform.python_version(),
        ray=package_version("ray"),
        tensorflow=package_version("tensorflow"),
        machine=", ".join([cpu, f"{cores} core{'s' if cores > 1 else ''}", *gpus]),
        cpu=cpu,
        cores=cores,
        gpus=gpus,
        platform=platform.platform(),
    )


def code_commit() -> str | None:
    """The commit of this code: that of its checkout, else the one it was shipped with."""
    if commit := git_commit(Path(__file__).parents[1]):
        return commit
    return COMMIT_FILE.read_text(encoding="utf-8").strip() if COMMIT_FILE.is_file() else None


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


def cpu_count(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that this process may use: its affinity mask, limited by its container's CPU quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cpu_quota(cgroup)
    return max(1, math.floor(min(available or 1, quota or math.inf)))


def _cpu_quota(file: Path) -> float | None:
    """The CPUs that a cgroup (version 2) may use at a time; None without a limit."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def gpu_count() -> int:
    """NVIDIA GPUs that this process may use: CUDA_VISIBLE_DEVICES, else the device files."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if visible is None:
        return devices
    return min(
        devices, len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    )


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs the driver shows, one each; none without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    said = _run_command("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [name.strip() for name in (said or "").splitlines() if name.strip()]


def gpu_memory_gb() -> float | None:
    """The memory in GB of the smallest NVIDIA GPU that the driver shows; None without a driver."""
    if shutil.which("nvidia-smi") is None:
        return None
    said = _run_command("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
    sizes = [int(line) for line in (said or "").split() if line.isdecimal()]
    return min(sizes) / 1024 if sizes else None


def _run_command(*command: str) -> str | None:
    """What a program printed; None where it is missing, fails or says nothing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
