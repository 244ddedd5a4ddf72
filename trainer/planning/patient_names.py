"""Which regular expression finds the patients in the names of slices."""

from collections.abc import Mapping, Sequence

from contract.errors import DataError
from trainer.data.splits import Split, find_patient

PATIENT_REGEXES = (
    r"^([^-]+)-",
    r"^([^_]+)_",
    r"^(.+)[-_]\D*\d+$",
    r"^(\D*\d+)",
)
"""What is tried, in this order: the text before the first hyphen, before the first underscore,
before the last number, and up to the end of the first number."""
WHOLE_NAME = r"^.+$"
"""Each slice is a patient of its own."""


def choose_patient_regex(names: Mapping[Split | None, Sequence[str]], min_patients: int) -> str:
    """The first regular expression that fits the names of all slices.

    It finds a patient in each name, fewer patients than slices, and no patient in two splits. If
    none does, and the dataset is split already, each slice is a patient of its own.

    Args:
        names: The names of the slices without suffix, by split; None: they are not split yet.
        min_patients: The number of patients without which the dataset cannot be split.

    Raises:
        DataError: The slices are not split, and no regular expression fits.
    """
    for regex in PATIENT_REGEXES:
        if _fits(regex, names, min_patients):
            return regex
    if None not in names:
        return WHOLE_NAME
    example = min((name for listed in names.values() for name in listed), default="")
    raise DataError(
        f"it is not clear which part of a name such as {example!r} is the patient: set "
        "data.patient_id_regex ('^([^_]+)_' takes everything before the first underscore), or, if "
        'every patient has only one slice, split them yourself with data.layout = "presplit".'
    )


def _fits(regex: str, names: Mapping[Split | None, Sequence[str]], min_patients: int) -> bool:
    patients = {
        split: {find_patient(name, regex) for name in listed} for split, listed in names.items()
    }
    everyone = set().union(*patients.values())
    if None in everyone or sum(map(len, patients.values())) > len(everyone):
        return False
    return min_patients <= len(everyone) < sum(map(len, names.values()))
