"""Which number format a worker computes in."""

import re
from pathlib import Path
from typing import Literal

import tensorflow as tf

Policy = Literal["float32", "mixed_bfloat16", "mixed_float16"]


def choose(
    wanted: Literal["auto"] | Policy, cpu_flags: set[str], capability: tuple[int, int] | None
) -> Policy:
    """The Keras policy for a setting on this hardware.

    cpu_flags: as Linux names them; capability: CUDA compute capability of the GPU, None without
    one. bfloat16 is computed from capability 8.0 (Ampere) and by CPUs with avx512_bf16 or
    amx_bf16; elsewhere on a CPU it is emulated, nine times slower than float32 where it was
    measured (docs/lab-notes.md). Tensor cores of capability 7.0 to 7.5 compute float16.
    """
    if wanted != "auto":
        return wanted
    if capability is not None:
        if capability >= (8, 0):
            return "mixed_bfloat16"
        return "mixed_float16" if capability >= (7, 0) else "float32"
    return "mixed_bfloat16" if cpu_flags & {"avx512_bf16", "amx_bf16"} else "float32"


def cpu_flags() -> set[str]:
    """The instruction sets of this machine's CPU; none known where Linux does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    found = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    return set(found[1].split()) if found else set()


def capability() -> tuple[int, int] | None:
    """The compute capability of this worker's GPU; None without one."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    return tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
