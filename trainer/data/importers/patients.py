"""The patients of volumes, and names of volumes that do not identify a person.

The name of a file in a dataset is <patient>-<slice>, which data.patient_id_regex finds by default;
a second volume of a patient is <patient>-v2-<slice>.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from contract.errors import DataError
from contract.imaging.volume_files import VolumeFile
from trainer.data.splits import find_patient

PatientSource = Literal["name", "patient-id"]

# In the name of a file, a hyphen ends the patient.
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.]+")
# A shorter name may be part of another word.
_MIN_CONTAINED = 4
_DATE = re.compile(r"^(\d{4})(\d\d)(\d\d)$")


@dataclass(frozen=True)
class PatientRule:
    """How the patient of a volume is found."""

    source: PatientSource = "name"
    """name: the name of the file or of the patient's folder; patient-id: PatientID of DICOM."""
    regex: str | None = None
    """Finds the patient in the path of the volume below its source instead."""

    def patient(self, volume: VolumeFile) -> str:
        """The patient of a volume, with letters, digits, "_" and "." only.

        Raises:
            DataError: There is none, or it contains the name or the birth date of the patient; or
                PatientID, which is not chosen, although the name is not a pseudonym.
        """
        raw = self.raw_patient(volume)
        patient = _NOT_ALLOWED.sub("_", raw).strip("_.")
        if not patient:
            raise DataError(
                f"{volume.label}: there is no letter or digit in its patient {raw!r}: rename the "
                "folder, or choose --patient-id-regex."
            )
        what = _find_identifier(raw, volume) or _find_identifier(patient, volume)
        is_chosen = what == "PatientID" and self.source == "patient-id" and self.regex is None
        if what and not is_chosen:
            remedy = "--patient-from or --patient-id-regex"
            if what == "PatientID":
                remedy = "--patient-from patient-id if it is a pseudonym"
            raise DataError(
                f"the patient {patient} of {volume.label} contains the {what} in its DICOM header: "
                f"rename the folder, or choose {remedy}."
            )
        return patient

    def raw_patient(self, volume: VolumeFile) -> str:
        """The patient of a volume as it is written; DataError if there is none."""
        if self.regex is not None:
            patient = find_patient(volume.path, self.regex)
            if patient is None:
                raise DataError(
                    f"--patient-id-regex '{self.regex}' finds no patient in {volume.path}: change "
                    "it."
                )
            return patient
        if self.source == "name":
            return volume.name
        patient_id = volume.series.headers[0].patient_id if volume.series else ""
        if not patient_id:
            raise DataError(
                f"{volume.label} has no PatientID: leave out --patient-from, or choose "
                "--patient-id-regex."
            )
        return patient_id


def name_volumes(
    volumes: Sequence[tuple[VolumeFile, str]], rule: PatientRule, existing: Mapping[VolumeFile, str]
) -> list[str]:
    """The name of each volume in the dataset: its patient, with -v2 for a second volume.

    Args:
        volumes: Each volume and its patient.
        rule: How the patients were found.
        existing: The names of volumes that the dataset has already.

    Raises:
        DataError: Volumes of different patients would have one name.
    """
    seen: defaultdict[str, list[VolumeFile]] = defaultdict(list)
    taken = set(existing.values())
    names = []
    for volume, patient in volumes:
        others = seen[patient.casefold()]
        for other in others:
            if reason := _are_different(other, volume, rule):
                raise DataError(
                    f"{other.label} and {volume.label} would both be the patient {patient}, but "
                    f"{reason}: choose --patient-from patient-id or --patient-id-regex."
                )
        others.append(volume)
        name = existing.get(volume) or _free_name(patient, taken)
        taken.add(name)
        names.append(name)
    return names


def _free_name(patient: str, taken: Collection[str]) -> str:
    names = (patient, *(f"{patient}-v{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def _are_different(first: VolumeFile, second: VolumeFile, rule: PatientRule) -> str:
    """Why two volumes of one name are of different patients; empty if nothing says so."""
    if rule.raw_patient(first) != rule.raw_patient(second):
        return f"are named {rule.raw_patient(first)!r} and {rule.raw_patient(second)!r}"
    if first.series and second.series:
        identifiers = {each.headers[0].patient_id for each in (first.series, second.series)}
        return "have different PatientIDs" if len(identifiers) > 1 else ""
    if first.nifti and second.nifti and rule.regex is None:
        return "" if first.nifti.parent == second.nifti.parent else "are in different folders"
    return ""


def check_names(names: Iterable[str], volume: VolumeFile) -> None:
    """DataError if the names of segments contain the name or the birth date of the patient."""
    for name in names:
        if (what := _find_identifier(name, volume)) in ("name", "birth date"):
            raise DataError(
                f"the segment {name!r} of {volume.label} contains the {what} in its DICOM header: "
                "rename the segment."
            )


def _find_identifier(text: str, volume: VolumeFile) -> str | None:
    """What of a patient's name, birth date and PatientID a text contains; None for nothing.

    PatientID is an identifier if the header also has a name, which is not a pseudonym.
    """
    if not volume.series:
        return None
    header = volume.series.headers[0]
    names = [each for each in header.identifiers if not _DATE.match(each)]
    if any(_contains(text, part) for name in names for part in (name, *_words(name))):
        return "name"
    digits = re.sub(r"\D", "", text)
    for date in header.identifiers:
        if match := _DATE.match(date):
            year, month, day = match.groups()
            if any(form in digits for form in (date, day + month + year, month + day + year)):
                return "birth date"
    return "PatientID" if names and _contains(text, header.patient_id) else None


def _contains(text: str, identifier: str) -> bool:
    """Whether a text contains an identifier, whatever their case, accents and separators are."""
    words, joined, expected = _words(text), "".join(_words(text)), "".join(_words(identifier))
    if len(expected) < _MIN_CONTAINED:
        is_all = expected == re.sub(r"\d", "", joined)
        return len(expected) > 1 and (expected in words or is_all)
    return expected in joined


def _words(text: str) -> list[str]:
    """The words of letters and digits in a text, without case and accents."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(each for each in decomposed if not unicodedata.combining(each))
    return [word for word in re.split(r"[\W_]+", plain) if word]
