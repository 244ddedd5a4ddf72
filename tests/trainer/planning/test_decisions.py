"""What is chosen for typical datasets and machines."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.resources import Node
from contract.config import set_value, validate
from contract.imaging.intensity_scaling import IntensityScaling
from tests.trainer.planning.fingerprints import CT, PHANTOM, PHOTOGRAPHS, split_counts
from trainer.planning.decisions import (
    GIVEN,
    TrainingPlan,
    choose_normalization,
    choose_settings,
)
from trainer.planning.fingerprint import DatasetFingerprint
from trainer.planning.sizing import (
    ENOUGH_SAMPLES,
    LARGE_SIDE,
    LARGE_TARGET_SAMPLES,
    MAX_PASSES,
    TARGET_SAMPLES,
    Resources,
)

TWO_CORES = Resources((Node("machine", 2, 0),), memory_gb=8.0)
ONE_GPU = Resources((Node("machine", 8, 1),), memory_gb=32.0, gpu_memory_gb=24.0)
FOUR_GPUS = Resources((Node("a", 16, 2), Node("b", 16, 2), Node("head", 4, 0)), gpu_memory_gb=24.0)
THREE_NODES = Resources((Node("a", 8, 0), Node("b", 8, 0), Node("head", 2, 0)))
FEW = replace(CT, slices=split_counts(5, 2, 2))
MANY = replace(CT, slices=split_counts(80_000, 10_000, 10_000), decoded=1000)


def settings_of(plan: TrainingPlan) -> dict[str, Any]:
    return {choice.key: choice.value for choice in plan.choices}


CASES: list[tuple[str, DatasetFingerprint, Resources, float, dict[str, Any]]] = [
    (
        "phantom",
        PHANTOM,
        TWO_CORES,
        15,
        {"data.normalize": "window", "data.intensity_high": 255, "train.steps_per_epoch": 20},
    ),
    (
        "CT on two cores",
        CT,
        TWO_CORES,
        15,
        {
            "network.image_size": 96,
            "network.num_layers": 5,
            "network.base_filters": 16,
            "network.max_filters": 256,
            "network.normalization": "batch",
            "network.deep_supervision": True,
            "data.normalize": "foreground",
            "data.augment.flip_horizontal": 0.0,
            "data.augment.elastic_probability": 0.5,
            "train.num_workers": 1,
            "train.cpus_per_worker": 2,
            "train.gpus_per_worker": 0,
            "train.batch_size": 8,
            "train.learning_rate": 2e-3,
            "train.lr_schedule": "polynomial",
            "train.warmup_epochs": 0.9,
            "train.weight_decay": 1e-4,
            "data.augment.scale": 1.42,
            "data.augment.gamma": 2.0,
            "data.augment.brightness": 0.4,
            "data.augment.noise": 0.02,
        },
    ),
    (
        "CT with foreground in a part",
        replace(CT, foreground_rows=(0.25, 0.7), foreground_columns=(0.3, 0.75)),
        TWO_CORES,
        15,
        {
            "data.crop_rows": [0.2, 0.75],
            "data.crop_columns": [0.25, 0.8],
            "network.image_size": 96,
        },
    ),
    (
        "CT on a GPU",
        CT,
        ONE_GPU,
        30,
        {
            "network.image_size": 256,
            "network.num_layers": 6,
            "network.base_filters": 32,
            "network.max_filters": 512,
            "train.num_workers": 1,
            "train.cpus_per_worker": 8,
            "train.gpus_per_worker": 1,
            "train.batch_size": 12,
            "train.learning_rate": 1.2e-3,
        },
    ),
    (
        "CT on four GPUs for hours",
        CT,
        FOUR_GPUS,
        240,
        {
            "network.image_size": 512,
            "network.num_layers": 7,
            "train.num_workers": 4,
            "train.cpus_per_worker": 8,
            "train.batch_size": 48,
        },
    ),
    (
        "CT on nodes without GPUs",
        CT,
        THREE_NODES,
        15,
        {"train.num_workers": 2, "train.cpus_per_worker": 8, "train.batch_size": 8},
    ),
    (
        "photographs",
        PHOTOGRAPHS,
        TWO_CORES,
        15,
        {
            "network.image_size": [80, 112],
            "network.image_channels": 3,
            "data.classes": {
                "organ": (230, 60, 60),
                "lesion": (60, 200, 80),
                "bone": (70, 90, 240),
            },
            "data.normalize": "window",
            "data.augment.flip_horizontal": 0.5,
        },
    ),
    (
        "very few slices",
        FEW,
        TWO_CORES,
        15,
        {"network.base_filters": 16, "train.batch_size": 5, "train.steps_per_epoch": 20},
    ),
    (
        "very few slices on more GPUs than slices",
        replace(CT, slices=split_counts(2, 1, 0)),
        FOUR_GPUS,
        15,
        {"train.num_workers": 2, "train.batch_size": 2, "network.normalization": "group"},
    ),
    ("several classes on a GPU", PHOTOGRAPHS, ONE_GPU, 30, {"network.image_size": [224, 288]}),
    ("100,000 slices", MANY, TWO_CORES, 15, {"network.image_size": 96}),
    ("100,000 slices, a minute", MANY, TWO_CORES, 1, {"network.image_size": 64}),
]


@pytest.mark.parametrize(
    ("fingerprint", "resources", "minutes", "expected"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_settings_of_a_dataset(
    fingerprint: DatasetFingerprint,
    resources: Resources,
    minutes: float,
    expected: dict[str, Any],
) -> None:
    plan = choose_settings(fingerprint, resources, minutes)
    settings = settings_of(plan)
    assert {key: settings.get(key) for key in expected} == expected
    tree: dict[str, Any] = {}
    for key, value in {**settings, "data.source": "folder", "data.root": "slices"}.items():
        set_value(tree, key, value)
    config = validate(tree, origin="test")
    assert all(side % config.network.size_multiple == 0 for side in config.network.image_shape)
    assert plan.schedule.seconds <= 60 * minutes
    assert config.train.batch_size <= fingerprint.slices["train"]
    assert all(choice.reason for choice in plan.choices)
    assert config.with_values({"train.epochs": 1}).train.epochs == 1


def test_more_time_and_faster_machines_see_larger_slices_or_more_of_them() -> None:
    sizes, samples = [], []
    for minutes in (5, 15, 60, 240):
        plan = choose_settings(CT, TWO_CORES, minutes)
        sizes.append(plan.shape.height)
        samples.append(plan.schedule.samples)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert min(samples) >= TARGET_SAMPLES
    fast = choose_settings(CT, replace(TWO_CORES, measured_speed=1e13), 15)
    assert fast.shape.height > sizes[1]


def test_more_pixels_pay_up_to_a_size_and_then_more_samples() -> None:
    """96 px, which the time allows with twice as many samples, instead of 128 or of 80."""
    for resources in (TWO_CORES, replace(TWO_CORES, measured_speed=3e10)):
        plan = choose_settings(CT, resources, 15)
        assert plan.shape.height == LARGE_SIDE
        assert plan.schedule.samples >= TARGET_SAMPLES
        assert plan.value("network.deep_supervision")
        larger = choose_settings(CT, resources, 15, {"network.image_size": 128})
        assert larger.schedule.samples < LARGE_TARGET_SAMPLES
    slowest = choose_settings(CT, replace(TWO_CORES, measured_speed=2e10), 15)
    assert slowest.shape.height < LARGE_SIDE
    assert slowest.schedule.samples >= TARGET_SAMPLES
    for minutes in (30, 60, 240):
        plan = choose_settings(CT, TWO_CORES, minutes)
        assert plan.shape.height > LARGE_SIDE
        assert plan.schedule.samples >= LARGE_TARGET_SAMPLES
        assert str(LARGE_TARGET_SAMPLES) in reason_of(plan, "network.image_size")


def test_little_memory_means_smaller_batches_and_slices() -> None:
    small = choose_settings(CT, replace(FOUR_GPUS, gpu_memory_gb=2.0), 240)
    smaller = choose_settings(CT, replace(FOUR_GPUS, gpu_memory_gb=0.1), 240)
    assert small.value("train.batch_size") < 48
    assert smaller.shape.height < 512


def test_a_training_ends_after_enough_passes() -> None:
    plan = choose_settings(PHANTOM, ONE_GPU, 1000)
    assert plan.schedule.samples <= 1.1 * MAX_PASSES * PHANTOM.slices["train"]
    assert "would not pay" in reason_of(plan, "train.epochs")


def test_too_little_time_is_said() -> None:
    plan = choose_settings(MANY, TWO_CORES, 1)
    assert plan.schedule.samples < ENOUGH_SAMPLES
    assert "take more minutes" in reason_of(plan, "train.epochs")


def reason_of(plan: TrainingPlan, key: str) -> str:
    return next(choice.reason for choice in plan.choices if choice.key == key)


def test_given_settings_are_kept_and_the_others_fit_them() -> None:
    given = {
        "network.image_size": 200,
        "train.batch_size": 6,
        "train.epochs": 3,
        "train.patience": None,
        "run.seed": 7,
    }
    plan = choose_settings(CT, FOUR_GPUS, 15, given)
    settings = settings_of(plan)
    assert settings["network.image_size"] == 200
    assert plan.shape.height == 200
    assert settings["train.num_workers"] == 2
    assert settings["train.warmup_epochs"] == 0.1
    assert settings["run.seed"] == 7
    assert "train.patience" not in settings
    assert reason_of(plan, "train.batch_size") == GIVEN


def test_a_given_schedule_or_optimizer_has_no_setting_that_does_not_fit_it() -> None:
    given = {"train.lr_schedule": "one_cycle", "train.optimizer": "sgd"}
    settings = settings_of(choose_settings(CT, TWO_CORES, 15, given))
    assert settings["train.warmup_epochs"] == 0
    assert "train.weight_decay" not in settings


def test_large_datasets_have_short_epochs_and_validations() -> None:
    plan = choose_settings(MANY, ONE_GPU, 60)
    settings = settings_of(plan)
    assert settings["train.steps_per_epoch"] < 80_000 // 12
    assert settings["train.validation_steps"] < settings["train.steps_per_epoch"]
    assert plan.schedule.epochs >= 15


def test_slices_without_foreground_are_balanced() -> None:
    assert "train.oversample_foreground" not in settings_of(choose_settings(CT, TWO_CORES, 15))
    sparse = choose_settings(replace(CT, foreground_slices=0.2), TWO_CORES, 15)
    assert sparse.value("train.oversample_foreground") == 0.33


@pytest.mark.parametrize(
    ("changes", "samples", "kind", "window"),
    [
        ({"is_8_bit": True, "min_intensity": 0, "max_intensity": 255}, 1, "window", (0, 255)),
        ({"is_8_bit": True, "min_intensity": 0, "max_intensity": 1}, 1, "window", (0, 2)),
        ({}, ENOUGH_SAMPLES, "foreground", None),
        ({}, 1, "window", (-160, 240)),
        ({"min_intensity": -100, "max_intensity": 200}, 1, "window", (-100, 200)),
        ({"foreground": IntensityScaling(300, 1200, 700, 90)}, 1, "window", (-150, 1500)),
        ({"min_intensity": 0}, 1, "foreground", None),
        ({"is_color": True, "min_intensity": 0}, 1, "window", (-1000.0, 400.0)),
        ({"foreground": None}, 1, "window", (-1000.0, 400.0)),
    ],
)
def test_normalization(
    changes: dict[str, Any], samples: int, kind: str, window: tuple[float, float] | None
) -> None:
    chosen, limits, _ = choose_normalization(replace(CT, **changes), samples)
    assert chosen == kind
    assert window is None or limits == window
