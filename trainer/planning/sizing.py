"""How large the network and the batches can be, and how long they can be trained.

Pure functions of the fingerprint, the machines and the time; given settings are kept.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.resources import Node
from contract.config.section import WHOLE
from trainer.planning.fingerprint import DatasetFingerprint
from trainer.planning.step_time import NetworkShape, Workers

TARGET_SAMPLES = 15_000
"""Samples that a training should see, augmented copies included; with fewer, its input is smaller.

On CT, 96 px and 5 levels with 15,000 samples were better than 80 px and 4 levels with 24,000 in the
same time (docs/accuracy.md)."""
LARGE_SIDE, LARGE_TARGET_SAMPLES = 96, 50_000
"""An input of more pixels than the square of this side pays only if as many samples are seen: on
CT, 96 px and 56,000 samples were as good as 128 px and 34,000 in the same time, and 128 px and
55,000 better than both."""
ENOUGH_SAMPLES = 20_000
"""Samples seen below which results say little about a recipe."""
MAX_PASSES, MIN_SAMPLES = 300, 10_000
"""How often a training uses each slice at most; with very few slices, it sees this many samples."""
NARROW, WIDE = (16, 256), (32, 512)
"""Filters of the first level, and their cap: those that did best on two cores, and nnU-Net's."""
CPU_BATCH, GPU_BATCH = 8, 12
"""Samples of a batch of one worker; the second is nnU-Net's for slices of 256 px."""
MIN_STEPS = 20
"""Steps of an epoch at least, so that validation does not take more time than training."""
MIN_EPOCHS = 20
"""Epochs at least, between which the learning rate falls and the best checkpoint is chosen."""
CROP_MARGIN = 0.05
"""Of the height and of the width: what the part of a slice contains around all foreground."""
MIN_CROP_PATIENTS = 20
"""Patients of the training split, below which their foreground does not tell where that of others
is."""

# A part that is larger saves little time.
_MAX_CROP_AREA = 0.75
# 160 px, for the time that they take, were no better than 128.
_SIDES = (1024, 768, 512, 384, 320, 256, 192, 128, 112, 96, 80, 64)
_MIN_SIDE, _MAX_SIDE = 16, 1024
# The limit of network.image_size.
_MAX_INPUT = 2048
# The deepest level has at least this many rows and columns, as with 5 levels at 96 px.
_MIN_FEATURES, _MAX_LAYERS = 6, 7
# Slices of about 256 px, before their sides are rounded, and enough of them.
_WIDE_SIDE, _WIDE_SLICES = 250, 200
# The start of Ray and TensorFlow, the first step and the bundle; the end of an epoch; a slice that
# one core checks and caches, which several do at a time.
_START_S, _GPU_START_S, _EPOCH_S = 45.0, 75.0, 0.5
_SLICE_S, _MAX_READERS = 0.01, 8
# Of the minutes, so that a training with many slices and little time has some left.
_MIN_TRAINING = 0.3
_MEMORY_FRACTION = 0.6
_GB_PER_CPU, _GB_PER_GPU = 2.0, 16.0


@dataclass(frozen=True)
class Resources:
    """The machines that will train."""

    nodes: tuple[Node, ...]
    memory_gb: float | None = None
    """Memory of a node; None if it is not known."""
    gpu_memory_gb: float | None = None
    measured_speed: float | None = None
    """Multiply-adds of training per second of one worker alone, if measured."""


@dataclass(frozen=True)
class Schedule:
    """The epochs of a training, and their expected time."""

    epochs: int
    steps_per_epoch: int
    validation_steps: int
    all_validation_steps: int
    step_seconds: float
    seconds: float
    samples: int
    """Samples seen in all epochs, augmented copies included."""


def choose_crop(
    fingerprint: DatasetFingerprint, given: Mapping[str, Any]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """data.crop_rows and data.crop_columns: where foreground is, with a margin, or all of a slice.

    Hundredths of the height and of the width.
    """
    rows, columns = (
        (
            max(0.0, math.floor(100 * (first - CROP_MARGIN)) / 100),
            min(1.0, math.ceil(100 * (last + CROP_MARGIN)) / 100),
        )
        for first, last in (fingerprint.foreground_rows, fingerprint.foreground_columns)
    )
    needs_slice = any(given.get(key) for key in ("predict.sliding_window", "train.preview_windows"))
    area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    few = fingerprint.patients["train"] < MIN_CROP_PATIENTS
    if needs_slice or few or area > _MAX_CROP_AREA:
        rows = columns = WHOLE
    return (
        tuple(given.get("data.crop_rows", rows)),
        tuple(given.get("data.crop_columns", columns)),
    )


def crop_fingerprint(
    fingerprint: DatasetFingerprint, rows: tuple[float, float], columns: tuple[float, float]
) -> DatasetFingerprint:
    """The fingerprint of the same part of each slice: its sizes, and the fractions of classes."""
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    return replace(
        fingerprint,
        height=round(height * fingerprint.height),
        width=round(width * fingerprint.width),
        max_height=round(height * fingerprint.max_height),
        max_width=round(width * fingerprint.max_width),
        classes=tuple(
            replace(each, fraction=each.fraction / (height * width)) for each in fingerprint.classes
        ),
    )


def training_seconds(fingerprint: DatasetFingerprint, workers: Workers, minutes: float) -> float:
    """The part of the time that remains for epochs."""
    start = _GPU_START_S if workers.gpus else _START_S
    slices = sum(fingerprint.slices.values()) * _SLICE_S / min(workers.cpus, _MAX_READERS)
    return max(60 * minutes - start - slices, _MIN_TRAINING * 60 * minutes)


def max_samples(fingerprint: DatasetFingerprint) -> int:
    """The samples that a training sees at most, however much time it has."""
    return max(MAX_PASSES * fingerprint.slices["train"], MIN_SAMPLES)


def target_samples(shape: NetworkShape) -> int:
    """The samples that a training of this network should see, if the slices are enough for them."""
    is_large = shape.height * shape.width > LARGE_SIDE**2
    return LARGE_TARGET_SAMPLES if is_large else TARGET_SAMPLES


def choose_workers(
    fingerprint: DatasetFingerprint, resources: Resources, given: Mapping[str, Any]
) -> Workers:
    """One worker for each GPU; without GPUs, one for each node of similar size."""
    gpu_nodes = [node for node in resources.nodes if node.gpus >= 1]
    use_gpus = bool(gpu_nodes) and given.get("train.gpus_per_worker", 1) > 0
    if use_gpus:
        count = sum(int(node.gpus) for node in gpu_nodes)
        cpus = min(node.cpus / int(node.gpus) for node in gpu_nodes)
        memory = resources.gpu_memory_gb or _GB_PER_GPU
    else:
        largest = max(node.cpus for node in resources.nodes)
        similar = [node.cpus for node in resources.nodes if node.cpus > largest / 2]
        count, cpus = len(similar), min(similar)
        memory = resources.memory_gb or _GB_PER_CPU * cpus
    # Each worker has at least one sample of a batch.
    count = min(count, max(1, fingerprint.slices["train"]))
    if "train.batch_size" in given:
        count = math.gcd(count, given["train.batch_size"])
    count = given.get("train.num_workers", count)
    cpus = given.get("train.cpus_per_worker", max(1, int(cpus)))
    return Workers(count, cpus, int(use_gpus), memory, resources.measured_speed)


def choose_shape(
    fingerprint: DatasetFingerprint,
    workers: Workers,
    seconds: float,
    given: Mapping[str, Any],
) -> tuple[NetworkShape, int, Schedule]:
    """The largest network that the time and the memory allow, or the smallest of all."""
    most = 0 if given.get("train.epochs") else max_samples(fingerprint)
    shapes = candidate_shapes(fingerprint, given)
    options: list[tuple[NetworkShape, int, Schedule]] = []
    for shape in shapes:
        batch_size = choose_batch_size(fingerprint, workers, shape, given)
        if batch_size is not None:
            schedule = create_schedule(fingerprint, workers, shape, batch_size, seconds, given)
            options.append((shape, batch_size, schedule))
            target = min(target_samples(shape), most)
            if schedule.samples >= target and schedule.seconds <= seconds:
                return options[-1]
    if options:
        return options[-1]
    smallest, batch_size = shapes[-1], workers.count
    schedule = create_schedule(fingerprint, workers, smallest, batch_size, seconds, given)
    return smallest, batch_size, schedule


def candidate_shapes(
    fingerprint: DatasetFingerprint, given: Mapping[str, Any] | None = None
) -> list[NetworkShape]:
    """The networks to choose from, largest first; none is larger than the median slice.

    Their input has the proportions of the median slice, and about as many pixels as the square of
    one of the usual sides; the slice's own size, rounded down to what suits the levels, is one of
    them. Only the minimum of 16 pixels and given levels make an input larger than the slice.
    """
    given = given or {}
    side = math.sqrt(fingerprint.height * fingerprint.width)
    sides = [min(side, _MAX_SIDE), *(each for each in _SIDES if each < side)]
    shapes: list[NetworkShape] = []
    for each in sides:
        shape = _create_shape(fingerprint, each / side, given)
        if shape not in shapes:
            shapes.append(shape)
    return shapes


def _create_shape(
    fingerprint: DatasetFingerprint, scale: float, given: Mapping[str, Any]
) -> NetworkShape:
    sides = fingerprint.height, fingerprint.width
    if size := given.get("network.image_size"):
        scale, sides = 1.0, (size, size) if isinstance(size, int) else tuple(size)
    levels = given.get("network.num_layers", _choose_levels(sides, scale))
    height, width = sides
    if not size:
        multiple = 2 ** (levels - 1)
        height, width = (
            multiple * max(math.ceil(_MIN_SIDE / multiple), _count_features(side, scale, multiple))
            for side in sides
        )
    pixels = scale**2 * math.prod(sides)
    is_wide = pixels >= _WIDE_SIDE**2 and fingerprint.slices["train"] >= _WIDE_SLICES
    filters, cap = WIDE if is_wide else NARROW
    filters = given.get("network.base_filters", filters)
    cap = given.get("network.max_filters", max(cap, filters))
    return NetworkShape(height, width, levels, filters, cap)


def _choose_levels(sides: tuple[int, int], scale: float) -> int:
    """The largest number of levels whose deepest one has at least _MIN_FEATURES rows and columns.

    From 2 to _MAX_LAYERS.
    """
    levels = 2
    while levels < _MAX_LAYERS and (
        min(_count_features(side, scale, 2**levels) for side in sides) >= _MIN_FEATURES
    ):
        levels += 1
    return levels


def _count_features(side: int, scale: float, multiple: int) -> int:
    """The number of features along a scaled side where each is as wide as multiple pixels.

    Rounded to the nearest; rounded down if the input would otherwise be larger than the slice, or
    than network.image_size may be.
    """
    return min(round(side * scale / multiple), side // multiple, _MAX_INPUT // multiple)


def choose_batch_size(
    fingerprint: DatasetFingerprint,
    workers: Workers,
    shape: NetworkShape,
    given: Mapping[str, Any] | None = None,
) -> int | None:
    """The global batch size; None if the memory of a worker is too small for two samples."""
    if given and "train.batch_size" in given:
        return given["train.batch_size"]
    per_worker = GPU_BATCH if workers.gpus else max(CPU_BATCH // workers.count, 4)
    fitting = int(_MEMORY_FRACTION * workers.memory_gb * 2**30 / shape.sample_bytes)
    if fitting < 2:
        return None
    available = max(1, fingerprint.slices["train"] // workers.count)
    return workers.count * min(per_worker, fitting, available)


def create_schedule(
    fingerprint: DatasetFingerprint,
    workers: Workers,
    shape: NetworkShape,
    batch_size: int,
    seconds: float,
    given: Mapping[str, Any] | None = None,
) -> Schedule:
    """As many epochs as the time allows, for at most max_samples.

    An epoch is a pass over the training slices; it is longer if that were less than MIN_STEPS, and
    shorter if there were fewer than MIN_EPOCHS. A step of the validation takes a third of the time
    of one of the training, and all of them at most a sixth of an epoch.
    """
    given = given or {}
    channels = input_channels(fingerprint, given)
    step = workers.step_seconds(shape, channels, len(fingerprint.classes), batch_size)
    natural = max(1, fingerprint.slices["train"] // batch_size)
    most = max(1, int((seconds / MIN_EPOCHS - _EPOCH_S) / (step * 7 / 6)))
    steps = given.get("train.steps_per_epoch") or min(max(natural, MIN_STEPS), most)
    all_validation = max(1, math.ceil(fingerprint.slices["valid"] / batch_size))
    validation = min(all_validation, max(1, steps // 2))
    validation = given.get("train.validation_steps") or validation
    epoch = _EPOCH_S + step * (steps + validation / 3)
    limit = max(MIN_EPOCHS, math.ceil(max_samples(fingerprint) / (steps * batch_size)))
    epochs = given.get("train.epochs") or min(max(1, int(seconds / epoch)), limit)
    return Schedule(
        epochs,
        steps,
        validation,
        all_validation,
        step,
        epochs * epoch,
        epochs * steps * batch_size,
    )


def input_channels(fingerprint: DatasetFingerprint, given: Mapping[str, Any]) -> int:
    """The channels of the network's input."""
    channels = given.get("network.image_channels", 3 if fingerprint.is_color else 1)
    return channels * (2 * given.get("data.neighbours", 0) + 1)
