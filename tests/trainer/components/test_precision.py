"""Which number format is chosen for which hardware."""

from pathlib import Path

import pytest

from trainer.components import precision


@pytest.mark.parametrize(
    ("cpu", "capability", "policy"),
    [
        (set(), None, "float32"),
        ({"avx2", "fma"}, None, "float32"),
        ({"avx512_bf16", "AuthenticAMD"}, None, "mixed_bfloat16"),
        ({"avx512_bf16", "GenuineIntel"}, None, "float32"),
        ({"avx512_bf16", "amx_bf16", "GenuineIntel"}, None, "mixed_bfloat16"),
        (set(), (6, 1), "float32"),
        (set(), (7, 5), "mixed_float16"),
        (set(), (8, 6), "mixed_bfloat16"),
        ({"avx512_bf16"}, (7, 0), "mixed_float16"),
    ],
)
def test_auto_takes_what_the_hardware_computes(
    cpu: set[str], capability: tuple[int, int] | None, policy: str
) -> None:
    assert precision.select_policy("auto", cpu, capability) == policy


def test_a_named_precision_is_taken_as_it_is() -> None:
    assert precision.select_policy("mixed_float16", set(), None) == "mixed_float16"


def test_this_machines_cpu_is_what_linux_says() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    flags = precision.read_cpu_flags()
    assert all(f" {word}" in text for word in flags)
    assert bool(flags) == ("flags\t" in text)
