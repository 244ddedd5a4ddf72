"""Which patient stands in which split of a pool: drawn once, written down, then obeyed."""

import json
import logging
import re
from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from contract.config import Data
from contract.errors import DataError
from contract.storage import Storage

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Patients = dict[Split, list[str]]

FILE = "splits.json"

_log = logging.getLogger(__name__)


def find_patient(name: str, pattern: str) -> str | None:
    """The patient in a file name without its suffix; None where the pattern finds none.

    The pattern's first group if it has one, else all it matches.
    """
    found = re.search(pattern, name)
    if found is None:
        return None
    return (found[1] if found.re.groups else found[0]) or None


def load_or_create_splits(
    foreground: Mapping[str, float], data: Data, seed: int, place: Storage
) -> Patients:
    """The patients of each split: as splits.json at place says, else dealt now and written there.

    foreground: every patient of the pool with the mean foreground fraction of its slices.
    Raises DataError for a patient that the file does not name.
    """
    if not place.exists(FILE):
        dealt = stratified_split(foreground, data.valid_fraction, data.test_fraction, seed)
        # Of two processes that deal at once the first is obeyed by both.
        place.create(FILE, json.dumps(dealt, indent=2).encode() + b"\n")
    patients = _read(place)
    _check_new_patients(patients, foreground.keys(), place)
    return patients


def stratified_split(
    foreground: Mapping[str, float], valid: float, test: float, seed: int
) -> Patients:
    """Patients dealt to the splits so that each has small and large organs.

    valid, test: shares of the patients; each split gets at least one. The patients are sorted by
    foreground and cut into as many strata as the split needs patients; a seeded generator draws
    one of each. Raises DataError where too few are left to train on.
    """
    draw = np.random.default_rng(seed)
    counts = {"test": _count(test, foreground), "valid": _count(valid, foreground)}
    if sum(counts.values()) >= len(foreground):
        raise DataError(
            f"the pool has {len(foreground)} patients, of whom {counts['valid']} would validate, "
            f"{counts['test']} test and none train: add patients, lower data.valid_fraction or "
            "data.test_fraction, or mend data.patient_id_regex."
        )
    left = sorted(foreground, key=lambda patient: (foreground[patient], patient))
    drawn: dict[str, set[str]] = {}
    for split, count in counts.items():
        strata = np.array_split(np.array(left, dtype=object), count)
        drawn[split] = {str(stratum[draw.integers(len(stratum))]) for stratum in strata}
        left = [patient for patient in left if patient not in drawn[split]]
    return {"train": sorted(left), "valid": sorted(drawn["valid"]), "test": sorted(drawn["test"])}


def _count(share: float, patients: Collection[str]) -> int:
    return max(1, round(share * len(patients)))


def _read(place: Storage) -> Patients:
    try:
        patients = TypeAdapter(Patients).validate_json(place.read(FILE))
    except ValidationError as error:
        raise DataError(
            f"{place.url}/{FILE} is damaged: it must hold the lists of patients train, valid and "
            "test; mend it, or delete it to have the patients dealt anew."
        ) from error
    return {split: patients.get(split, []) for split in SPLITS}


def _check_new_patients(patients: Patients, pool: Collection[str], place: Storage) -> None:
    listed = [patient for split in SPLITS for patient in patients[split]]
    twice = sorted({patient for patient in listed if listed.count(patient) > 1})
    if twice:
        raise DataError(
            f"{place.url}/{FILE} names patient {twice[0]} more than once; leave it in one split."
        )
    new = sorted(set(pool) - set(listed))
    if new:
        raise DataError(
            f"patient {new[0]}{f' and {len(new) - 1} more' if new[1:] else ''} came to the pool "
            f"after it was split: add the patient to a split in {place.url}/{FILE}, or delete "
            "that file to have all patients dealt anew."
        )
    gone = sorted(set(listed) - set(pool))
    if gone:
        _log.warning(
            "%d patients of %s/%s are no longer there: %s",
            len(gone),
            place.url,
            FILE,
            ", ".join(gone[:5]),
        )
