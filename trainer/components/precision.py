"""The Keras mixed precision policy of a worker."""

import re
from pathlib import Path
from typing import Literal

import tensorflow as tf

Policy = Literal["float32", "mixed_bfloat16", "mixed_float16"]


def select_policy(
    requested: Literal["auto"] | Policy,
    cpu_flags: set[str],
    compute_capability: tuple[int, int] | None,
) -> Policy:
    """The Keras policy for a setting on this hardware: bfloat16 if it is faster.

    bfloat16 is faster than float32 from compute capability 8.0 (Ampere), on CPUs with amx_bf16, and
    on AMD CPUs with avx512_bf16. Intel CPUs that have only the latter compute it more slowly, and
    an emulation is nine times slower (docs/lab-notes.md). Tensor cores of capability 7.0 to 7.5
    compute float16.

    Args:
        requested: train.precision.
        cpu_flags: The vendor and the instruction sets of the CPU, as Linux names them.
        compute_capability: The CUDA compute capability of the GPU; None without a GPU.
    """
    if requested != "auto":
        return requested
    if compute_capability is not None:
        if compute_capability >= (8, 0):
            return "mixed_bfloat16"
        return "mixed_float16" if compute_capability >= (7, 0) else "float32"
    faster = "amx_bf16" in cpu_flags or {"avx512_bf16", "AuthenticAMD"} <= cpu_flags
    return "mixed_bfloat16" if faster else "float32"


def read_cpu_flags() -> set[str]:
    """Vendor and instruction sets of this machine's CPU; empty if /proc/cpuinfo is missing."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    lines = re.findall(r"^(?:vendor_id|flags)\s*:\s*(.*)$", text, re.MULTILINE)
    return {word for line in lines for word in line.split()}


def gpu_compute_capability() -> tuple[int, int] | None:
    """The compute capability of this worker's GPU; None without one."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    return tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
