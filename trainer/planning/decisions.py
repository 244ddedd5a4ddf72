"""The settings for a dataset, the machines and a time: pure functions of plain values.

The rules are those of nnU-Net (Isensee 2021, doi:10.1038/s41592-020-01008-z) where it has one, and
what was measured on slices of NIH Pancreas-CT:

- below about 20,000 samples seen, results say little about a recipe;
- on two cores, 5 levels of 16 to 256 filters, AdamW with 2e-3, polynomial decay, elastic
  deformation, zoom and no mirroring did best; of whole slices, 160 px were equal to 128 px in the
  same time, and 192 px worse;
- of the part with foreground, 96 px with 56,000 samples were as good as 128 px with 34,000 in the
  same time; twice the samples at 96 px were worth 0.018, and 128 px with 55,000 samples 0.014 more
  than 96 px with as many;
- four levels at 88 x 96 px were worse by 0.025 than five at 96 x 96 px, with as many samples and
  30 % less time; four at 80 px by 0.018, with 24,000 samples instead of 15,000 in the same time;
- on a GPU, 256 px and 32 to 512 filters were better than 512 px at equal time; wide networks and
  z-scores of the foreground pay once there are samples enough.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from cluster.resources import Node
from contract.config.section import WHOLE
from contract.plurals import pluralize
from trainer.planning.fingerprint import DatasetFingerprint
from trainer.planning.sizing import (
    CPU_BATCH,
    CROP_MARGIN,
    ENOUGH_SAMPLES,
    LARGE_SIDE,
    LARGE_TARGET_SAMPLES,
    MAX_PASSES,
    MIN_EPOCHS,
    TARGET_SAMPLES,
    WIDE,
    Resources,
    Schedule,
    choose_crop,
    choose_shape,
    choose_workers,
    crop_fingerprint,
    max_samples,
    target_samples,
    training_seconds,
)
from trainer.planning.step_time import NetworkShape, Workers

GIVEN = "given"
"""The reason for a setting that the user gave."""
_SOFT_TISSUE = (-160, 240)
# Settings that have an effect, or are allowed, with a window only.
_WINDOW_SETTINGS = (
    "data.intensity_low",
    "data.intensity_high",
    "data.color_space",
    "data.gamma",
    "data.sharpening",
)


@dataclass(frozen=True)
class Choice:
    """A setting, its value, and why."""

    key: str
    value: Any
    reason: str


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
    workers = choose_workers(fingerprint, resources, chosen.given)
    seconds = training_seconds(fingerprint, workers, minutes)
    crop = choose_crop(fingerprint, chosen.given)
    part = crop_fingerprint(fingerprint, *crop)
    shape, batch_size, schedule = choose_shape(part, workers, seconds, chosen.given)
    _add_data(chosen, fingerprint, schedule)
    is_cropped = crop != (WHOLE, WHOLE)
    if is_cropped:
        _add_crop(chosen, fingerprint, *crop)
    _add_augmentation(chosen, fingerprint)
    _add_network(chosen, part, workers, shape, batch_size, schedule, is_cropped)
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
        """Given settings that are not chosen from anything, then the chosen ones."""
        for key, value in self.given.items():
            if key not in self._chosen and value is not None:
                yield Choice(key, value, GIVEN)
        yield from self._chosen.values()


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
    if any(key in chosen.given for key in _WINDOW_SETTINGS):
        normalize, reason = "window", "needed by the settings that were given"
    chosen.add("data.normalize", normalize, reason)
    normalize = chosen.given.get("data.normalize", normalize)
    if normalize == "window":
        low, high = window
        text = "the window that becomes 0..1"
        chosen.add("data.intensity_low", low, text)
        chosen.add("data.intensity_high", high, text)


def _add_crop(
    chosen: _Choices,
    fingerprint: DatasetFingerprint,
    rows: tuple[float, float],
    columns: tuple[float, float],
) -> None:
    area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    axes = (
        ("rows", rows, fingerprint.foreground_rows, "height"),
        ("columns", columns, fingerprint.foreground_columns, "width"),
    )
    for name, part, foreground, side in axes:
        chosen.add(
            f"data.crop_{name}",
            list(part),
            f"all foreground of the training masks is within {foreground[0]:.2f} to "
            f"{foreground[1]:.2f} of the {side}; with a margin of {CROP_MARGIN:g}, the network is "
            f"given {area:.0%} of a slice and takes as much less time at the same resolution; what "
            "is outside is background",
        )


def _layout_reason(fingerprint: DatasetFingerprint) -> str:
    counts = ", ".join(
        f"{split} {pluralize(fingerprint.slices[split], 'slice')} of "
        f"{pluralize(fingerprint.patients[split], 'patient')}"
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
        (
            "scale",
            1.42,
            "largest zoom, 0.7 to 1.42 as in nnU-Net and in the best recipe on two cores",
        ),
        ("shift", 0.1, "of the sides"),
        ("elastic_probability", 0.5, "half of the samples are deformed"),
        ("elastic", 0.03, "standard deviation of the displacements, of the shorter side"),
    )
    for name, value, why in geometric:
        chosen.add(f"data.augment.{name}", value, why)
    differences = "differences between patients, scanners or cameras"
    stronger = f"{differences}; with weaker changes the darkest patient of a CT dataset did worse"
    intensity = (
        ("gamma", 2.0, stronger),
        ("brightness", 0.4, stronger),
        ("noise", 0.02, differences),
    )
    for name, value, why in intensity:
        chosen.add(f"data.augment.{name}", value, why)


def _add_network(
    chosen: _Choices,
    fingerprint: DatasetFingerprint,
    workers: Workers,
    shape: NetworkShape,
    batch_size: int,
    schedule: Schedule,
    is_cropped: bool,
) -> None:
    is_square = shape.height == shape.width
    chosen.add(
        "network.image_size",
        shape.height if is_square else [shape.height, shape.width],
        _size_reason(fingerprint, shape, schedule, is_cropped),
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
    is_wide = shape.base_filters >= WIDE[0]
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
    deep = shape.num_layers >= 3 and schedule.samples >= TARGET_SAMPLES
    chosen.add(
        "network.deep_supervision",
        deep,
        "as in nnU-Net; it was part of the best recipe on two cores"
        if deep
        else f"it pays with more than about {TARGET_SAMPLES} samples",
    )


def _size_reason(
    fingerprint: DatasetFingerprint, shape: NetworkShape, schedule: Schedule, is_cropped: bool
) -> str:
    native = f"{fingerprint.height} x {fingerprint.width}"
    part = "part of the median slice" if is_cropped else "median slice"
    parts = [f"the {part} has {native} pixels (height x width)"]
    if (fingerprint.max_height, fingerprint.max_width) != (fingerprint.height, fingerprint.width):
        parts[0] += f", the largest {fingerprint.max_height} x {fingerprint.max_width}"
    if fingerprint.spacing_mm:
        rows = fingerprint.spacing_mm[0] * fingerprint.height / shape.height
        columns = fingerprint.spacing_mm[1] * fingerprint.width / shape.width
        parts.append(f"a pixel of the network is {rows:.2g} x {columns:.2g} mm")
    if schedule.samples >= target_samples(shape):
        parts.append(
            f"the largest size at which the time allows {TARGET_SAMPLES} samples, or "
            f"{LARGE_TARGET_SAMPLES} above {LARGE_SIDE} x {LARGE_SIDE} pixels: smaller ones with "
            "more samples did worse, larger ones with fewer no better"
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
    if chosen.given.get("train.optimizer", "adamw") == "adamw":
        chosen.add("train.weight_decay", 1e-4, "that of the best recipe on two cores")
    rate = (1e-3 if shape.base_filters >= WIDE[0] else 2e-3) * min(
        2.0, math.sqrt(batch_size / CPU_BATCH)
    )
    chosen.add(
        "train.learning_rate",
        float(f"{rate:.2g}"),
        f"2e-3 for 16 filters and half of it for 32, at a batch of {CPU_BATCH}; it grows with the "
        "root of the batch size, at most twofold",
    )
    chosen.add(
        "train.lr_schedule", "polynomial", "falls to 0 at the last epoch; cosine did no better"
    )
    epochs = chosen.given.get("train.epochs", schedule.epochs)
    if chosen.given.get("train.lr_schedule") == "one_cycle":
        chosen.add("train.warmup_epochs", 0.0, "one_cycle has a warm-up of its own")
    else:
        chosen.add(
            "train.warmup_epochs",
            min(0.9, round(epochs / 20, 1)),
            "a twentieth of the epochs, but less than one, so that a trial with train.epochs=1 or "
            "2 is possible",
        )
    if epochs >= 30:
        chosen.add(
            "train.patience",
            epochs // 2,
            "half of the epochs: the last ones, at a low rate, gain much, so only a training that "
            "learns nothing more ends early",
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
        text += f"; below {ENOUGH_SAMPLES} results say little: take more minutes or faster machines"
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


def describe_nodes(nodes: Sequence[Node]) -> str:
    """The nodes in words: "2 nodes with 16 CPUs and 2 GPUs in all"."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    count = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    return f"{count} with {cpus:g} CPUs" + f" and {gpus:g} GPUs" * bool(gpus)
