"""Which patient is in which split of an unsplit dataset: drawn once, saved, then reused."""

import json
import logging
import re
from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from contract.config import Data
from contract.errors import DataError
from contract.plurals import pluralize
from contract.storage import Storage

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
SplitPatients = dict[Split, list[str]]

SPLITS_FILE = "splits.json"

_log = logging.getLogger(__name__)


def find_patient(name: str, pattern: str) -> str | None:
    """The patient in a file name without suffix; None if the regular expression finds none.

    It is the first group of the expression if it has one, else the complete match.
    """
    match = re.search(pattern, name)
    if match is None:
        return None
    return (match[1] if match.re.groups else match[0]) or None


def load_or_create_splits(
    foreground: Mapping[str, float], data: Data, seed: int, storage: Storage
) -> SplitPatients:
    """The patients of each split: from splits.json if it exists, else drawn and saved there.

    Args:
        foreground: Every patient of the dataset with the mean foreground fraction of its slices.
        data: The fractions of the splits.
        seed: The seed of the draw.
        storage: Where splits.json is stored.

    Raises:
        DataError: The dataset has a patient that the file does not name.
    """
    if not storage.exists(SPLITS_FILE):
        created = stratified_split(foreground, data.valid_fraction, data.test_fraction, seed)
        # If two processes draw at the same time, both use the file of the first.
        storage.create(SPLITS_FILE, json.dumps(created, indent=2).encode() + b"\n")
    patients = _read_splits(storage)
    _check_new_patients(patients, foreground.keys(), storage)
    return patients


def stratified_split(
    foreground: Mapping[str, float], valid_fraction: float, test_fraction: float, seed: int
) -> SplitPatients:
    """Patients assigned to splits so that each split has small and large organs.

    The patients are sorted by foreground and divided into as many strata as a split needs
    patients; a seeded generator draws one patient from each stratum. Each split has at least one,
    unless its fraction is 0. Raises DataError if too few patients remain for training.
    """
    rng = np.random.default_rng(seed)
    counts = {
        "test": _count(test_fraction, foreground),
        "valid": _count(valid_fraction, foreground),
    }
    if sum(counts.values()) >= len(foreground):
        raise DataError(
            f"the dataset has {pluralize(len(foreground), 'patient')}: {counts['valid']} would be "
            f"for validation, {counts['test']} for testing and none for training: add patients, "
            "lower data.valid_fraction or data.test_fraction, or correct data.patient_id_regex."
        )
    remaining = sorted(foreground, key=lambda patient: (foreground[patient], patient))
    chosen: dict[str, set[str]] = {}
    for split, count in counts.items():
        strata = np.array_split(np.array(remaining, dtype=object), count) if count else []
        chosen[split] = {str(stratum[rng.integers(len(stratum))]) for stratum in strata}
        remaining = [patient for patient in remaining if patient not in chosen[split]]
    return {
        "train": sorted(remaining),
        "valid": sorted(chosen["valid"]),
        "test": sorted(chosen["test"]),
    }


def draw_folds(foreground: Mapping[str, float], folds: int, seed: int) -> list[list[str]]:
    """Patients assigned to folds for cross-validation so that each has small and large organs.

    The patients are sorted by foreground, and a seeded generator shuffles each block of as many
    patients as there are folds, one for each fold.

    Args:
        foreground: Every patient with the mean foreground fraction of its slices.
        folds: The number of folds.
        seed: The seed of the draw.

    Raises:
        DataError: There are fewer patients than folds.
    """
    if len(foreground) < folds:
        raise DataError(
            f"the train and valid splits have {pluralize(len(foreground), 'patient')} together, "
            f"too few for data.folds = {folds}: add patients, or set fewer folds."
        )
    rng = np.random.default_rng(seed)
    ordered = sorted(foreground, key=lambda patient: (foreground[patient], patient))
    assigned: list[list[str]] = [[] for _ in range(folds)]
    for start in range(0, len(ordered), folds):
        chosen = rng.permutation(folds)
        for patient, fold in zip(ordered[start : start + folds], chosen, strict=False):
            assigned[fold].append(patient)
    return [sorted(patients) for patients in assigned]


def _count(fraction: float, patients: Collection[str]) -> int:
    """The patients of a split: at least one, unless its fraction is 0."""
    return max(1, round(fraction * len(patients))) if fraction else 0


def _read_splits(storage: Storage) -> SplitPatients:
    try:
        patients = TypeAdapter(SplitPatients).validate_json(storage.read(SPLITS_FILE))
    except ValidationError as error:
        raise DataError(
            f"{storage.url}/{SPLITS_FILE} is damaged: it must contain the lists of patients train, "
            "valid and test; correct it, or delete it to split the patients again."
        ) from error
    return {split: patients.get(split, []) for split in SPLITS}


def _check_new_patients(
    patients: SplitPatients, dataset_patients: Collection[str], storage: Storage
) -> None:
    file = f"{storage.url}/{SPLITS_FILE}"
    listed = [patient for split in SPLITS for patient in patients[split]]
    duplicates = sorted({patient for patient in listed if listed.count(patient) > 1})
    if duplicates:
        raise DataError(
            f"{file} names patient {duplicates[0]} more than once; keep it in one split."
        )
    new = sorted(set(dataset_patients) - set(listed))
    if new:
        raise DataError(
            f"patient {new[0]}{f' and {len(new) - 1} more' if new[1:] else ''} was added to the "
            f"dataset after it was split: add the patient to a split in {file}, or delete that "
            "file to split all patients again."
        )
    missing = sorted(set(listed) - set(dataset_patients))
    if missing:
        _log.warning(
            "%d patients of %s are no longer in the dataset: %s",
            len(missing),
            file,
            ", ".join(missing[:5]),
        )
