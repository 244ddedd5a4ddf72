"""Dice of predicted masks: per file, or per patient over the stacked volume.

contract.confusion defines the Dice. dice.csv has one row per file, dice_by_patient.csv one row per
patient.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import fmean

from contract.bundle import Manifest
from contract.confusion import ConfusionCounts, class_counts, pooled_counts
from contract.errors import ConfigError, DataError, UserError
from contract.imaging.arrays import format_size
from contract.imaging.decode import decode_mask
from contract.imaging.file_names import normalized_stem
from contract.imaging.mask_encoding import MaskEncoding, UnknownValuesError
from contract.imaging.mask_values import count_values, decide_threshold
from contract.imaging.segmentation_class import SegmentationClass
from contract.patterns import compile_pattern
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage
from contract.tables import to_csv
from inference.batch.predict_files import Failures, PredictionJob, find_slices, stem_of

FILES_TABLE = "dice.csv"
PATIENTS_TABLE = "dice_by_patient.csv"
_READERS = 4

ClassCounts = tuple[ConfusionCounts, ...]
"""The counts of each class."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiceScore:
    """The Dice of one file or of one patient, of each class."""

    name: str
    by_class: tuple[float, ...]

    @property
    def dice(self) -> float:
        """The mean over the classes."""
        return fmean(self.by_class)


class GroundTruth:
    """The masks to compare with: that of ct/001.jpg is ct/001 with any suffix."""

    def __init__(
        self,
        storage: Storage,
        keys: Sequence[str],
        encoding: MaskEncoding,
        patient_regex: re.Pattern[str] | None,
    ) -> None:
        """encoding: of the masks; patient_regex: finds the patient in a file name."""
        self.storage = storage
        self.keys = {normalized_stem(key): key for key in keys}
        self.encoding = encoding
        self.patient_regex = patient_regex
        self.unit, self.table = (
            ("patients", PATIENTS_TABLE) if patient_regex else ("files", FILES_TABLE)
        )

    def compare(self, job: PredictionJob, key: str) -> ClassCounts:
        """The counts of a slice's written mask, by class; DataError naming the file."""
        stem = stem_of(key)
        mask_key = self.keys.get(normalized_stem(key))
        if mask_key is None:
            raise DataError(f"{key}: there is no ground truth mask {stem} in {self.storage.url}.")
        try:
            mask = self.encoding.read(self.storage, mask_key)
        except UnknownValuesError as error:
            raise DataError(
                f"{error.fault}; the bundle was trained on masks without it: correct the mask."
            ) from error
        prediction = job.read_mask(key)
        if prediction.shape != mask.shape:
            raise DataError(
                f"{key}: its ground truth mask has {format_size(mask)} pixels, the slice has "
                f"{format_size(prediction)}."
            )
        return class_counts(prediction, mask, len(self.encoding.classes))

    def scores(self, counts: Mapping[str, ClassCounts]) -> list[DiceScore]:
        """The Dice of every patient over all pixels of the patient's slices, or of every file.

        Raises DataError for a file name without a patient.
        """
        slices: dict[str, list[ClassCounts]] = {}
        for key, slice_counts in counts.items():
            slices.setdefault(self._patient_or_file(key), []).append(slice_counts)
        return [
            DiceScore(name, tuple(pooled_counts(each).dice for each in zip(*of_name, strict=True)))
            for name, of_name in sorted(slices.items())
        ]

    def _patient_or_file(self, key: str) -> str:
        if self.patient_regex is None:
            return key
        match = self.patient_regex.search(key.rsplit("/", 1)[-1])
        if not match:
            pattern = self.patient_regex.pattern
            raise DataError(f"--patient-id-regex {pattern!r} finds no patient in {key}.")
        return match[1] if self.patient_regex.groups else match[0]


def ground_truth_encoding(manifest: Manifest) -> MaskEncoding:
    """How ground truth masks encode the classes of a bundle, without a threshold."""
    return MaskEncoding(
        manifest.classes,
        tolerance=manifest.class_tolerance,
        other_is_background=manifest.other_values_are_background,
    )


def open_ground_truth(
    masks: str,
    encoding: MaskEncoding,
    threshold: int | None,
    patient_regex: str | None,
) -> GroundTruth:
    """The ground truth masks that a user names: a file, folder or prefix.

    Args:
        masks: The file, folder or prefix.
        encoding: The classes of the bundle; if they have values, the masks must have the same.
        threshold: Foreground is above it, for a single class without a value; None: decided from
            the values of all masks.
        patient_regex: Finds the patient in the name of a file (without folders), as its first group
            if it has one; None: each file is scored by itself.

    Raises:
        ConfigError: The expression is not valid, or a threshold is given for classes with values.
        DataError: There are no masks, or their values do not suggest a threshold.
    """
    pattern = None
    if patient_regex is not None:
        pattern = compile_pattern("--patient-id-regex", patient_regex)
    storage, keys = find_slices(masks)
    if encoding.classes[0].value is not None:
        if threshold is not None:
            names = ", ".join(each.name for each in encoding.classes)
            raise ConfigError(
                f"--ground-truth-threshold = {threshold} has no effect: the bundle has the classes "
                f"{names}, each with its own value; remove it."
            )
        return GroundTruth(storage, keys, encoding, pattern)
    if threshold is None:
        threshold = _decide_threshold(storage, keys)
        log.info("ground truth is foreground above %d (--ground-truth-threshold)", threshold)
    return GroundTruth(storage, keys, replace(encoding, threshold=threshold), pattern)


def _decide_threshold(storage: Storage, keys: Sequence[str]) -> int:
    """The threshold that the values of the masks suggest; DataError if they do not."""

    def read(key: str) -> tuple[str, dict[int, int]]:
        return key, count_values(decode_mask(storage.read(key), f"{storage.url}/{key}"))

    with ThreadPoolExecutor(_READERS, thread_name_prefix="masks") as pool:
        masks = list(pool.map(read, keys))
    try:
        return decide_threshold(masks)
    except DataError as error:
        reason = str(error).replace("data.mask_threshold", "--ground-truth-threshold")
        raise DataError(f"{storage.url}: {reason}") from error


def score_files(
    ground_truth: GroundTruth,
    job: PredictionJob,
    keys: Sequence[str],
    on_progress: ProgressCallback = no_progress,
) -> tuple[dict[str, ClassCounts], Failures]:
    """The counts of every key's mask, by class, and the keys that could not be compared."""

    def compare(key: str) -> ClassCounts | str:
        try:
            return ground_truth.compare(job, key)
        except UserError as error:
            return str(error)

    counts: dict[str, ClassCounts] = {}
    failures: Failures = {}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="dice") as pool:
        for key, result in zip(keys, pool.map(compare, keys), strict=True):
            if isinstance(result, str):
                failures[key] = result
            else:
                counts[key] = result
            on_progress(len(counts) + len(failures), len(keys), "")
    return counts, failures


def mean_dice(scores: Sequence[DiceScore]) -> float:
    """The mean Dice of at least one file or patient."""
    return fmean(score.dice for score in scores)


def scores_csv(
    column: str, scores: Sequence[DiceScore], classes: Sequence[SegmentationClass]
) -> bytes:
    """Scores as CSV; column: the header of their names. Several classes have a column each."""
    by_class = [f"dice_{each.name}" for each in classes] if len(classes) > 1 else []
    rows = [
        (
            score.name,
            *(f"{dice:.6f}" for dice in (score.dice, *score.by_class)[: 1 + len(by_class)]),
        )
        for score in scores
    ]
    return to_csv((column, "dice", *by_class), rows)
