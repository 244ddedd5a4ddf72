"""Fingerprints of typical datasets, for tests of what is chosen for them."""

from dataclasses import replace

from contract.imaging.intensity_scaling import IntensityScaling
from trainer.data.splits import Split
from trainer.planning.fingerprint import ClassStats, DatasetFingerprint


def split_counts(train: int, valid: int, test: int) -> dict[Split, int]:
    return {"train": train, "valid": valid, "test": test}


CT = DatasetFingerprint(
    layout="unsplit",
    patient_id_regex="^([^-]+)-",
    example=("P1-0001", "P1"),
    slices=split_counts(480, 85, 102),
    patients=split_counts(37, 7, 7),
    decoded=667,
    height=512,
    width=512,
    max_height=512,
    max_width=512,
    is_color=False,
    is_8_bit=False,
    min_intensity=-1024,
    max_intensity=1500,
    low_intensity=-1000.0,
    high_intensity=400.0,
    foreground=IntensityScaling(-60.0, 180.0, 90.0, 30.0),
    mask_threshold=0,
    classes=(ClassStats("foreground", None, 1.0, 0.012),),
    foreground_slices=1.0,
    spacing_mm=(0.8, 0.8),
)
"""Slices of CT in Hounsfield units, 512 px."""
PHANTOM = replace(
    CT,
    layout="presplit",
    slices=split_counts(144, 48, 48),
    height=128,
    width=128,
    max_height=128,
    max_width=128,
    is_8_bit=True,
    min_intensity=0,
    max_intensity=255,
    spacing_mm=None,
)
PHOTOGRAPHS = replace(
    CT,
    slices=split_counts(900, 100, 100),
    height=300,
    width=400,
    max_height=600,
    max_width=800,
    is_color=True,
    is_8_bit=True,
    min_intensity=0,
    max_intensity=255,
    mask_threshold=None,
    classes=(
        ClassStats("organ", (230, 60, 60), 0.9, 0.2),
        ClassStats("lesion", (60, 200, 80), 0.4, 0.01),
        ClassStats("bone", (70, 90, 240), 0.5, 0.05),
    ),
    spacing_mm=None,
)
"""RGB, rectangular, three classes by color."""
