"""The settings for a dataset, the machines and a time: pure functions of plain values.

The rules are those of nnU-Net (Isensee 2021, doi:10.1038/s41592-020-01008-z) where it has one, and
what was measured on slices of NIH Pancreas-CT:

- nothing below about 20,000 samples seen tells one recipe from another;
- on two cores, whole slices at 128 px, 5 levels of 16 to 256 filters, AdamW with 2e-3, polynomial
  decay, elastic deformation, zoom and no mirroring did best; 160 px in the same time was equal,
  192 px worse;
- on a GPU, 256 px and 32 to 512 filters were better than 512 px at equal time; wide networks and
  z-scores of the foreground pay once there are samples enough.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

from cluster.resources import Node
from trainer.planning.fingerprint import DatasetFingerprint
from trainer.planning.step_time import NetworkShape, Workers

GIVEN = "given"
"""The reason for a setting that the user gave."""
TARGET_SAMPLES = 25_000
"""Samples that a training should see: somewhat more than the 20,000 below which nothing tells."""
ENOUGH_SAMPLES = 20_000
MAX_PASSES, MIN_SAMPLES = 300, 10_000
"""How often a training uses each slice at most; with very few slices, it sees this many samples."""
MIN_STEPS = 20
"""Steps of an epoch at least, so that validation does not take more time than training."""
MIN_EPOCHS = 20
"""Epochs at least, between which the learning rate falls and the best checkpoint is chosen."""

# 160 px, for the time that they take, were no better than 128.
_SIDES = (1024, 768, 512, 384, 320, 256, 192, 128, 96, 64)
_MIN_SIDE, _MAX_SIDE = 16, 1024
# The deepest level has at least this many rows and columns, as with 5 levels at 96 px.
_MIN_FEATURES, _MAX_LAYERS = 6, 7
_WIDE_SIDE, _WIDE_SLICES = 256, 200
_NARROW, _WIDE = (16, 256), (32, 512)
_CPU_BATCH, _GPU_BATCH = 8, 12
# The start of Ray and TensorFlow, the first step and the bundle; the end of an epoch; a slice that
# one core checks and caches, which several do at a time.
_START_S, _GPU_START_S, _EPOCH_S = 45.0, 75.0, 1.0
_SLICE_S, _MAX_READERS = 0.01, 8
# Of the minutes, so that a training with many slices and little time has some left.
_MIN_TRAINING = 0.3
_MEMORY_FRACTION = 0.6
_GB_PER_CPU, _GB_PER_GPU = 2.0, 16.0
_SOFT_TISSUE = (-160, 240)


@dataclass(frozen=True)
class Choice:
    """A setting, its value, and why."""

    key: str
    value: Any
    reason: str


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


@dataclass(frozen=True)
class TrainingPlan:
    """The chosen settings in the order of the file, and what determined them."""

    choices: tuple[Choice, ...]
    shape: NetworkShape
    workers: Workers
    schedule: Schedule

    def value(self, key: str) -> Any:
        """The value of a chosen setting."""
        return next(choice.value for choice in self.choices if choice.key == key)


def choose_settings(
    fingerprint: DatasetFingerprint,
    resources: Resources,
    minutes: float,
    given: Mapping[str, Any] | None = None,
) -> TrainingPlan:
    """Choose the settings of [data], [network] and [train].

    Args:
        fingerprint: The fingerprint of the dataset.
        resources: The machines.
        minutes: The time for `segfleet train`, its start and the bundle included.
        given: Settings by section.key that are kept; the others are chosen to fit them.

    Returns:
        The settings. They fit each other, unless a given one does not fit the dataset.
    """
    chosen = _Choices(given or {})
    workers = _choose_workers(fingerprint, resources, chosen.given)
    seconds = training_seconds(fingerprint, workers, minutes)
    shape, batch_size, schedule = _choose_shape(fingerprint, workers, seconds, chosen.given)
    _add_data(chosen, fingerprint, schedule)
    _add_augmentation(chosen, fingerprint)
    _add_network(chosen, fingerprint, workers, shape, batch_size, schedule)
    _add_training(chosen, fingerprint, workers, shape, batch_size, schedule, seconds)
    return TrainingPlan(tuple(chosen), shape, workers, schedule)


@final
class _Choices:
    """The settings that were chosen so far; a given one replaces the value and the reason."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self._chosen: dict[str, Choice] = {}

    def add(self, key: str, value: Any, reason: str) -> None:
        """Choose a value, unless it is given; None: the setting stays absent."""
        if key in self.given:
            value, reason = self.given[key], GIVEN
        if value is not None:
            self._chosen[key] = Choice(key, value, reason)

    def __iter__(self) -> Iterator[Choice]:
        """The chosen settings, then other given ones."""
        yield from self._chosen.values()
        for key, value in self.given.items():
            if key not in self._chosen and value is not None:
                yield Choice(key, value, GIVEN)


def training_seconds(fingerprint: DatasetFingerprint, workers: Workers, minutes: float) -> float:
    """The part of the time that remains for epochs."""
    start = _GPU_START_S if workers.gpus else _START_S
    slices = sum(fingerprint.slices.values()) * _SLICE_S / min(workers.cpus, _MAX_READERS)
    return max(60 * minutes - start - slices, _MIN_TRAINING * 60 * minutes)


def max_samples(fingerprint: DatasetFingerprint) -> int:
    """The samples that a training sees at most, however much time it has."""
    return max(MAX_PASSES * fingerprint.slices["train"], MIN_SAMPLES)


def _choose_workers(
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


def _choose_shape(
    fingerprint: DatasetFingerprint,
    workers: Workers,
    seconds: float,
    given: Mapping[str, Any],
) -> tuple[NetworkShape, int, Schedule]:
    """The largest network that the time and the memory allow, or the smallest of all."""
    target = 0
    if given.get("train.epochs") is None:
        target = min(TARGET_SAMPLES, max_samples(fingerprint))
    shapes = candidate_shapes(fingerprint, given)
    options: list[tuple[NetworkShape, int, Schedule]] = []
    for shape in shapes:
        batch_size = choose_batch_size(fingerprint, workers, shape, given)
        if batch_size is not None:
            schedule = create_schedule(fingerprint, workers, shape, batch_size, seconds, given)
            options.append((shape, batch_size, schedule))
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
    one of the usual sides; the slice's own size is one of them.
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
    height, width = (
        max(_MIN_SIDE, round(side * scale)) for side in (fingerprint.height, fingerprint.width)
    )
    if size := given.get("network.image_size"):
        height, width = (size, size) if isinstance(size, int) else size
    levels = 1 + int(math.log2(min(height, width) / _MIN_FEATURES))
    levels = given.get("network.num_layers", min(max(levels, 2), _MAX_LAYERS))
    if not size:
        multiple = 2 ** (levels - 1)
        height, width = (max(1, side // multiple) * multiple for side in (height, width))
    is_wide = height * width >= _WIDE_SIDE**2 and fingerprint.slices["train"] >= _WIDE_SLICES
    filters, cap = _WIDE if is_wide else _NARROW
    filters = given.get("network.base_filters", filters)
    cap = given.get("network.max_filters", max(cap, filters))
    return NetworkShape(height, width, levels, filters, cap or filters * 2**levels)


def choose_batch_size(
    fingerprint: DatasetFingerprint,
    workers: Workers,
    shape: NetworkShape,
    given: Mapping[str, Any] | None = None,
) -> int | None:
    """The global batch size; None if the memory of a worker is too small for two samples."""
    if given and "train.batch_size" in given:
        return given["train.batch_size"]
    per_worker = _GPU_BATCH if workers.gpus else max(_CPU_BATCH // workers.count, 4)
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


def _add_data(chosen: _Choices, fingerprint: DatasetFingerprint, schedule: Schedule) -> None:
    name, patient = fingerprint.example
    patients = sum(fingerprint.patients.values())
    chosen.add("data.layout", fingerprint.layout, _layout_reason(fingerprint))
    chosen.add(
        "data.patient_id_regex",
        fingerprint.patient_id_regex,
        f"finds {patients} patients in {sum(fingerprint.slices.values())} names, such as {patient} "
        f"in {name}: check this, because the metrics are by patient",
    )
    if fingerprint.mask_threshold is None:
        classes = {each.name: each.value for each in fingerprint.classes}
        names = "" if fingerprint.has_class_names else "; rename them"
        chosen.add(
            "data.classes",
            classes,
            f"the values of the masks; {_class_text(fingerprint)}{names}",
        )
    else:
        chosen.add(
            "data.mask_threshold",
            fingerprint.mask_threshold,
            f"separates the values of the masks; {_class_text(fingerprint)}",
        )
    normalize, window, reason = choose_normalization(fingerprint, schedule.samples)
    if "data.normalize" in chosen.given:
        normalize = chosen.given["data.normalize"]
    chosen.add("data.normalize", normalize, reason)
    if normalize == "window":
        low, high = window
        text = "the window that becomes 0..1"
        chosen.add("data.intensity_low", low, text)
        chosen.add("data.intensity_high", high, text)


def _layout_reason(fingerprint: DatasetFingerprint) -> str:
    counts = ", ".join(
        f"{split} {fingerprint.slices[split]} slices of {fingerprint.patients[split]} patients"
        for split in fingerprint.slices
    )
    if fingerprint.layout == "presplit":
        return f"the folders are split: {counts}"
    return f"the folders are not split; segfleet splits the patients: {counts}"


def _class_text(fingerprint: DatasetFingerprint) -> str:
    return ", ".join(
        f"{each.name} is in {each.slices:.0%} of the training slices, with {each.fraction:.2%} of "
        "their pixels"
        for each in fingerprint.classes
    )


def choose_normalization(
    fingerprint: DatasetFingerprint, samples: int
) -> tuple[Literal["window", "foreground"], tuple[float, float], str]:
    """How raw intensities become the input: data.normalize, the window if it is one, and why."""
    everything = fingerprint.low_intensity, fingerprint.high_intensity
    if everything[0] >= everything[1]:
        everything = fingerprint.min_intensity, fingerprint.max_intensity + 1
    if fingerprint.is_8_bit:
        window = (0, 255) if fingerprint.max_intensity > 127 else (0, fingerprint.max_intensity + 1)
        return (
            "window",
            window,
            f"the slices have 8 bits, {fingerprint.min_intensity} to {fingerprint.max_intensity}: "
            "they were windowed when they were saved",
        )
    foreground = fingerprint.foreground
    if fingerprint.is_color:
        return (
            "window",
            everything,
            "the percentiles 0.5 and 99.5 of all pixels: z-scores of the foreground are for grey "
            "slices",
        )
    if foreground is None:
        return (
            "window",
            everything,
            "the percentiles 0.5 and 99.5 of all pixels: the foreground has one intensity only",
        )
    measured = f"{foreground.low:g} to {foreground.high:g}"
    if fingerprint.min_intensity >= 0:
        return (
            "foreground",
            everything,
            "16 bits without negative values, so probably not Hounsfield units: clipped to the "
            f"percentiles of the training foreground ({measured}) and z-scored; no fixed window "
            "fits the units of several scanners",
        )
    if samples >= ENOUGH_SAMPLES:
        return (
            "foreground",
            everything,
            "Hounsfield units, clipped to the percentiles of the training foreground "
            f"({measured} HU) and z-scored, as nnU-Net does for CT: it pays from about "
            f"{ENOUGH_SAMPLES} samples, and {samples} will be seen",
        )
    return (
        "window",
        _hounsfield_window(fingerprint, foreground.low, foreground.high),
        f"Hounsfield units are the same on all scanners, and the foreground has {measured} HU; "
        f"z-scores pay from about {ENOUGH_SAMPLES} samples, and {samples} will be seen",
    )


def _hounsfield_window(
    fingerprint: DatasetFingerprint, low: float, high: float
) -> tuple[float, float]:
    """The window of soft tissue if the foreground is in it, else the foreground with a margin."""
    if not (_SOFT_TISSUE[0] <= low and high <= _SOFT_TISSUE[1]):
        margin = (high - low) / 2
        low, high = 10 * math.floor((low - margin) / 10), 10 * math.ceil((high + margin) / 10)
    else:
        low, high = _SOFT_TISSUE
    # An import with --window has clipped the slices.
    return max(low, fingerprint.min_intensity), min(high, fingerprint.max_intensity)


def _add_augmentation(chosen: _Choices, fingerprint: DatasetFingerprint) -> None:
    if fingerprint.is_color:
        flip, reason = 0.5, "slices in color are photographs or sections without a left and a right"
        vertical = "set it too if they have no up and down, as sections of tissue"
    else:
        flip, reason = 0.0, "grey slices of a body are not mirrored: organs have a side"
        vertical = reason
    chosen.add("data.augment.flip_horizontal", flip, reason)
    chosen.add("data.augment.flip_vertical", 0.0, vertical)
    geometric = (
        (
            "rotation",
            20.0,
            "degrees; small turns, zoom and elastic deformation instead of mirroring and any angle "
            "were worth 0.04 of Dice on slices of CT",
        ),
        ("scale", 1.35, "largest zoom"),
        ("shift", 0.1, "of the sides"),
        ("elastic_probability", 0.5, "half of the samples are deformed"),
        ("elastic", 0.03, "standard deviation of the displacements, of the shorter side"),
    )
    for name, value, why in geometric:
        chosen.add(f"data.augment.{name}", value, why)
    intensity = (("gamma", 1.5), ("brightness", 0.2), ("noise", 0.02))
    for name, value in intensity:
        chosen.add(f"data.augment.{name}", value, "differences between scanners or cameras")


def _add_network(
    chosen: _Choices,
    fingerprint: DatasetFingerprint,
    workers: Workers,
    shape: NetworkShape,
    batch_size: int,
    schedule: Schedule,
) -> None:
    is_square = shape.height == shape.width
    chosen.add(
        "network.image_size",
        shape.height if is_square else [shape.height, shape.width],
        _size_reason(fingerprint, shape, schedule),
    )
    chosen.add(
        "network.image_channels",
        3 if fingerprint.is_color else 1,
        "the slices are in color" if fingerprint.is_color else "the slices are grey",
    )
    deepest = [side >> (shape.num_layers - 1) for side in (shape.height, shape.width)]
    chosen.add(
        "network.num_layers",
        shape.num_layers,
        f"the deepest level sees the slice as {deepest[0]} x {deepest[1]} features",
    )
    is_wide = shape.base_filters >= _WIDE[0]
    width = (
        "as wide as nnU-Net: width pays from about 20,000 samples"
        if is_wide
        else "the width that did best on two cores; a wider network sees too few samples, or has "
        "too few slices"
    )
    chosen.add("network.base_filters", shape.base_filters, width)
    chosen.add("network.max_filters", shape.max_filters, "the cap of this width")
    local_batch = batch_size // workers.count
    chosen.add(
        "network.normalization",
        "batch" if local_batch >= 4 else "group",
        "faster than groups, and a worker has enough samples for its statistics"
        if local_batch >= 4
        else f"a worker has {local_batch} samples of a batch, too few for its statistics",
    )
    chosen.add("network.dropout_rate", 0.05, "times the index of the level")
    deep = shape.num_layers >= 3 and schedule.samples >= ENOUGH_SAMPLES
    chosen.add(
        "network.deep_supervision",
        deep,
        "as in nnU-Net; it was part of the best recipe on two cores"
        if deep
        else f"it pays with more than about {ENOUGH_SAMPLES} samples",
    )


def _size_reason(fingerprint: DatasetFingerprint, shape: NetworkShape, schedule: Schedule) -> str:
    native = f"{fingerprint.height} x {fingerprint.width}"
    parts = [f"the median slice has {native} pixels (height x width)"]
    if (fingerprint.max_height, fingerprint.max_width) != (fingerprint.height, fingerprint.width):
        parts[0] += f", the largest {fingerprint.max_height} x {fingerprint.max_width}"
    if fingerprint.spacing_mm:
        rows = fingerprint.spacing_mm[0] * fingerprint.height / shape.height
        columns = fingerprint.spacing_mm[1] * fingerprint.width / shape.width
        parts.append(f"a pixel of the network is {rows:.2g} x {columns:.2g} mm")
    if schedule.samples >= TARGET_SAMPLES:
        parts.append(
            f"the largest size at which the time allows {TARGET_SAMPLES} samples: nothing below "
            f"{ENOUGH_SAMPLES} tells, and more pixels pay only with as many samples"
        )
    pixels = shape.height * shape.width
    smallest = min(fingerprint.classes, key=lambda each: each.fraction or math.inf)
    parts.append(f"{smallest.name} has about {smallest.fraction * pixels:.0f} pixels at this size")
    return "; ".join(parts)


def _add_training(
    chosen: _Choices,
    fingerprint: DatasetFingerprint,
    workers: Workers,
    shape: NetworkShape,
    batch_size: int,
    schedule: Schedule,
    seconds: float,
) -> None:
    _add_workers(chosen, workers)
    chosen.add(
        "train.batch_size",
        batch_size,
        f"{batch_size // workers.count} samples of about "
        f"{shape.sample_bytes / 2**20:.0f} MiB in each worker",
    )
    _add_schedule(chosen, fingerprint, workers, batch_size, schedule, seconds)
    if fingerprint.foreground_slices < 2 / 3:
        chosen.add(
            "train.oversample_foreground",
            0.33,
            f"only {fingerprint.foreground_slices:.0%} of the training slices have foreground; "
            "nnU-Net has it in a third of each batch",
        )
    chosen.add("train.loss", "bce_dice_loss", "cross-entropy and batch Dice 1:1, as in nnU-Net")
    chosen.add("train.optimizer", "adamw", "did best on two cores")
    rate = (1e-3 if shape.base_filters >= _WIDE[0] else 2e-3) * min(
        2.0, math.sqrt(batch_size / _CPU_BATCH)
    )
    chosen.add(
        "train.learning_rate",
        float(f"{rate:.2g}"),
        f"2e-3 for 16 filters and half of it for 32, at a batch of {_CPU_BATCH}; it grows with the "
        "root of the batch size, at most twofold",
    )
    chosen.add(
        "train.lr_schedule", "polynomial", "falls to 0 at the last epoch; cosine did no better"
    )
    epochs = chosen.given.get("train.epochs", schedule.epochs)
    warmup = min(5.0, round(epochs / 20, 1))
    chosen.add("train.warmup_epochs", warmup if epochs > 1 else 0.0, "a twentieth of the epochs")
    if epochs >= 30:
        chosen.add(
            "train.patience",
            max(10, epochs // 3),
            "a third of the epochs: the last ones, at a low rate, gain much, so only a training "
            "that learns nothing more ends early",
        )
    chosen.add("train.precision", "auto", "bfloat16 if it is faster on the hardware of the workers")


def _add_workers(chosen: _Choices, workers: Workers) -> None:
    if workers.gpus:
        reason = "one worker for each GPU"
    elif workers.count == 1:
        reason = "one worker with all cores: two with half of them each are a quarter slower"
    else:
        reason = "one worker for each node, with all of its cores"
    chosen.add("train.num_workers", workers.count, reason)
    chosen.add(
        "train.cpus_per_worker",
        workers.cpus,
        "the cores of a GPU augment its samples" if workers.gpus else "the cores of a node",
    )
    chosen.add(
        "train.gpus_per_worker",
        workers.gpus,
        "GPUs are" + " not" * (not workers.gpus) + " available",
    )


def _add_schedule(
    chosen: _Choices,
    fingerprint: DatasetFingerprint,
    workers: Workers,
    batch_size: int,
    schedule: Schedule,
    seconds: float,
) -> None:
    source = "as measured here" if workers.measured_speed else "estimated from multiply-adds"
    text = (
        f"{schedule.seconds / 60:.0f} of {seconds / 60:.0f} minutes without start and bundle: a "
        f"step takes {schedule.step_seconds * 1000:.0f} ms ({source}); {schedule.samples} samples "
        "are seen"
    )
    if schedule.samples < min(ENOUGH_SAMPLES, max_samples(fingerprint)):
        text += f"; below {ENOUGH_SAMPLES} no result tells: take more minutes or faster machines"
    elif schedule.seconds < seconds / 2:
        text += f"; more than {MAX_PASSES} passes over the slices would not pay"
    if schedule.seconds > seconds:
        text += "; this is more than the time: take more minutes"
    chosen.add("train.epochs", schedule.epochs, text)
    natural = max(1, fingerprint.slices["train"] // batch_size)
    if schedule.steps_per_epoch != natural:
        reason = (
            f"a pass over the slices has {natural}; shorter epochs, for {MIN_EPOCHS} validations"
            if schedule.steps_per_epoch < natural
            else f"a pass over the slices has {natural}; longer epochs, for fewer validations"
        )
        chosen.add("train.steps_per_epoch", schedule.steps_per_epoch, reason)
    if schedule.validation_steps < schedule.all_validation_steps:
        chosen.add(
            "train.validation_steps",
            schedule.validation_steps,
            f"of {schedule.all_validation_steps}, evenly spaced: a sixth of the time of an epoch",
        )


def with_speed(resources: Resources, speed: float | None) -> Resources:
    """The resources with the measured speed of a worker."""
    return replace(resources, measured_speed=speed)


def describe_nodes(nodes: Sequence[Node]) -> str:
    """The nodes in words: "2 nodes with 16 CPUs and 2 GPUs in all"."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    count = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    return f"{count} with {cpus:g} CPUs" + f" and {gpus:g} GPUs" * bool(gpus)
