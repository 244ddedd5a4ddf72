"""Dice of predicted masks against true ones: per file, or per patient over the stacked volume.

Dice = 2 |A and B| / (|A| + |B|), and 1 where both are empty, as in contract.confusion (a test holds
the two together). dice.csv has a row for each file, dice_by_patient.csv one for each patient.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from contract.errors import ConfigError, DataError, UserError
from contract.imaging.encode import decode_mask
from contract.storage import Storage
from inference.batch.predict_files import Failures, PredictionJob, find_slices, stem_of

FILES = "dice.csv"
PATIENTS = "dice_by_patient.csv"
_READERS = 4


@dataclass(frozen=True)
class Overlap:
    """Pixels of a predicted and a true mask; those of slices add up to those of a volume."""

    both: int = 0
    """Pixels in both masks."""
    either: int = 0
    """Pixels of the one mask plus pixels of the other."""

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(self.both + other.both, self.either + other.either)

    @property
    def dice(self) -> float:
        """0 to 1; 1 where both masks are empty."""
        return 2 * self.both / self.either if self.either else 1.0


@dataclass(frozen=True)
class Score:
    """How well one file or one patient is segmented."""

    name: str
    dice: float


def overlap(mask: np.ndarray, truth: np.ndarray) -> Overlap:
    """The pixels of two masks [H, W], foreground where they are not 0."""
    found, wanted = mask != 0, truth != 0
    return Overlap(int((found & wanted).sum()), int(found.sum() + wanted.sum()))


class GroundTruth:
    """True masks beside the slices: the mask of ct/001.jpg is ct/001 with any suffix."""

    def __init__(
        self, store: Storage, keys: Sequence[str], threshold: int, patient: re.Pattern[str] | None
    ) -> None:
        """threshold: a pixel is foreground above it. patient: finds the patient in a file name."""
        self.store = store
        self.keys = {stem_of(key): key for key in keys}
        self.threshold = threshold
        self.patient = patient
        self.unit, self.table = ("patients", PATIENTS) if patient else ("files", FILES)

    def compare(self, task: PredictionJob, key: str) -> Overlap:
        """The overlap of a slice's written mask with its true one; DataError naming the file."""
        name = stem_of(key)
        if name not in self.keys:
            raise DataError(f"{key}: there is no true mask {name} in {self.store.url}.")
        try:
            truth = decode_mask(self.store.read(self.keys[name]), self.threshold)
        except DataError as error:
            raise DataError(f"{self.store.url}/{self.keys[name]}: {error}") from error
        mask = decode_mask(task.output.read(f"{name}.png"), 127)
        if mask.shape != truth.shape:
            raise DataError(
                f"{key}: its true mask has {_size(truth)} pixels, the slice {_size(mask)}."
            )
        return overlap(mask, truth)

    def scores(self, overlaps: Mapping[str, Overlap]) -> list[Score]:
        """The Dice of every patient over all pixels of their slices, or of every file.

        Raises DataError for a file name in which no patient is found.
        """
        totals: dict[str, Overlap] = {}
        for key, found in overlaps.items():
            name = self._owner(key)
            totals[name] = totals.get(name, Overlap()) + found
        return [Score(name, total.dice) for name, total in sorted(totals.items())]

    def _owner(self, key: str) -> str:
        if self.patient is None:
            return key
        found = self.patient.search(key.rsplit("/", 1)[-1])
        if not found:
            raise DataError(f"--patients {self.patient.pattern!r} finds no patient in {key}.")
        return found[1] if self.patient.groups else found[0]


def open_ground_truth(masks: str, threshold: int, patients: str | None) -> GroundTruth:
    """The true masks a user names: a file, folder or prefix.

    patients: a regular expression that finds the patient in a file's name (without folders), by
    its first group if it has one; absent: every file counts for itself.
    """
    try:
        pattern = re.compile(patients) if patients is not None else None
    except re.error as error:
        raise ConfigError(f"--patients {patients!r} is no regular expression: {error}.") from error
    return GroundTruth(*find_slices(masks), threshold, pattern)


def score_files(
    truth: GroundTruth, task: PredictionJob, keys: Sequence[str], advance: Callable[[int], None]
) -> tuple[dict[str, Overlap], Failures]:
    """The overlap of every key's mask, and the keys that could not be compared."""

    def compare(key: str) -> Overlap | str:
        try:
            return truth.compare(task, key)
        except UserError as error:
            return str(error)

    overlaps: dict[str, Overlap] = {}
    failures: Failures = {}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="dice") as pool:
        for key, found in zip(keys, pool.map(compare, keys), strict=True):
            if isinstance(found, Overlap):
                overlaps[key] = found
            else:
                failures[key] = found
            advance(1)
    return overlaps, failures


def mean_dice(scores: Sequence[Score]) -> float:
    """The mean Dice of at least one file or patient."""
    return fmean(score.dice for score in scores)


def scores_csv(title: str, scores: Sequence[Score]) -> bytes:
    """Scores as CSV; title: what stands over their names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((title, "dice"))
    writer.writerows((score.name, f"{score.dice:.6f}") for score in scores)
    return text.getvalue().encode()


def _size(mask: np.ndarray) -> str:
    return f"{mask.shape[0]} x {mask.shape[1]}"
