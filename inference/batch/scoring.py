"""Dice of predicted masks: per file, or per patient over the stacked volume.

contract.confusion defines the Dice. dice.csv has one row per file, dice_by_patient.csv one row per
patient.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from contract.confusion import ConfusionCounts, confusion_counts
from contract.errors import ConfigError, DataError, UserError
from contract.imaging.decode import decode_mask
from contract.imaging.file_names import normalized_stem
from contract.imaging.mask_values import count_values, decide_threshold
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage
from contract.tables import to_csv
from inference.batch.predict_files import Failures, PredictionJob, find_slices, stem_of

FILES_TABLE = "dice.csv"
PATIENTS_TABLE = "dice_by_patient.csv"
_READERS = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiceScore:
    """The Dice of one file or of one patient."""

    name: str
    dice: float


class GroundTruth:
    """The masks to compare with: that of ct/001.jpg is ct/001 with any suffix."""

    def __init__(
        self,
        storage: Storage,
        keys: Sequence[str],
        threshold: int,
        patient_regex: re.Pattern[str] | None,
    ) -> None:
        """threshold: foreground is above it; patient_regex: finds the patient in a file name."""
        self.storage = storage
        self.keys = {normalized_stem(key): key for key in keys}
        self.threshold = threshold
        self.patient_regex = patient_regex
        self.unit, self.table = (
            ("patients", PATIENTS_TABLE) if patient_regex else ("files", FILES_TABLE)
        )

    def compare(self, job: PredictionJob, key: str) -> ConfusionCounts:
        """The counts of a slice's written mask; DataError naming the file."""
        stem = stem_of(key)
        mask_key = self.keys.get(normalized_stem(key))
        if mask_key is None:
            raise DataError(f"{key}: there is no ground truth mask {stem} in {self.storage.url}.")
        name = f"{self.storage.url}/{mask_key}"
        mask = decode_mask(self.storage.read(mask_key), name) > self.threshold
        prediction = decode_mask(job.output.read(f"{stem}.png"), f"{job.output.url}/{stem}.png")
        if prediction.shape != mask.shape:
            raise DataError(
                f"{key}: its ground truth mask has {_format_size(mask)} pixels, the slice has "
                f"{_format_size(prediction)}."
            )
        return confusion_counts(prediction, mask)

    def scores(self, counts: Mapping[str, ConfusionCounts]) -> list[DiceScore]:
        """The Dice of every patient over all pixels of the patient's slices, or of every file.

        Raises DataError for a file name without a patient.
        """
        totals: dict[str, ConfusionCounts] = {}
        for key, slice_counts in counts.items():
            name = self._patient_or_file(key)
            totals[name] = totals.get(name, ConfusionCounts()) + slice_counts
        return [DiceScore(name, total.dice) for name, total in sorted(totals.items())]

    def _patient_or_file(self, key: str) -> str:
        if self.patient_regex is None:
            return key
        match = self.patient_regex.search(key.rsplit("/", 1)[-1])
        if not match:
            pattern = self.patient_regex.pattern
            raise DataError(f"--patient-id-regex {pattern!r} finds no patient in {key}.")
        return match[1] if self.patient_regex.groups else match[0]


def open_ground_truth(masks: str, threshold: int | None, patient_regex: str | None) -> GroundTruth:
    """The ground truth masks that a user names: a file, folder or prefix.

    threshold: foreground is above it; None: decided from the values of all masks. patient_regex:
    finds the patient in the name of a file (without folders), as its first group if
    it has one; None: each file is scored by itself.
    """
    try:
        pattern = re.compile(patient_regex) if patient_regex is not None else None
    except re.error as error:
        raise ConfigError(
            f"--patient-id-regex {patient_regex!r} is not a valid regular expression: {error}."
        ) from error
    storage, keys = find_slices(masks)
    if threshold is None:
        threshold = _decide_threshold(storage, keys)
        log.info("ground truth is foreground above %d (--ground-truth-threshold)", threshold)
    return GroundTruth(storage, keys, threshold, pattern)


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
) -> tuple[dict[str, ConfusionCounts], Failures]:
    """The counts of every key's mask, and the keys that could not be compared."""

    def compare(key: str) -> ConfusionCounts | str:
        try:
            return ground_truth.compare(job, key)
        except UserError as error:
            return str(error)

    counts: dict[str, ConfusionCounts] = {}
    failures: Failures = {}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="dice") as pool:
        for key, result in zip(keys, pool.map(compare, keys), strict=True):
            if isinstance(result, ConfusionCounts):
                counts[key] = result
            else:
                failures[key] = result
            on_progress(len(counts) + len(failures), len(keys), "")
    return counts, failures


def mean_dice(scores: Sequence[DiceScore]) -> float:
    """The mean Dice of at least one file or patient."""
    return fmean(score.dice for score in scores)


def scores_csv(column: str, scores: Sequence[DiceScore]) -> bytes:
    """Scores as CSV; column: the header of their names."""
    return to_csv((column, "dice"), [(score.name, f"{score.dice:.6f}") for score in scores])


def _format_size(mask: np.ndarray) -> str:
    return f"{mask.shape[0]} x {mask.shape[1]}"
