"""The patients of volumes, and names of volumes that do not identify a person.

The name of a file in a dataset is <patient>-<slice>, which data.patient_id_regex finds by default;
a second volume of a patient is <patient>-v2-<slice>.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from contract.errors import ConfigError, DataError
from contract.imaging.volume_files import VolumeFile
from trainer.data.splits import find_patient

PatientSource = Literal["name", "patient-id"]

# In the name of a file, a hyphen ends the patient.
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.]+")
# A shorter name may be part of another word.
_MIN_CONTAINED = 4
_DATE = re.compile(r"^\d{8}$")


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
            DataError: There is none, or it contains the name or the birth date of the patient.
        """
        raw = self._raw_patient(volume)
        patient = _NOT_ALLOWED.sub("_", raw).strip("_.")
        if not patient:
            raise DataError(
                f"{volume.label}: there is no letter or digit in its patient {raw!r}: rename the "
                "folder, or choose --patient-id-regex."
            )
        _check_identifiers(patient, volume)
        return patient

    def _raw_patient(self, volume: VolumeFile) -> str:
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


def check_regex(pattern: str | None) -> None:
    """ConfigError if a user's regular expression is not valid."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigError(
            f"--patient-id-regex '{pattern}' is not a valid regular expression: {error}."
        ) from error


def name_volumes(volumes: Sequence[tuple[VolumeFile, str]]) -> list[str]:
    """The name of each volume in the dataset: its patient, with -v2 for a second volume.

    Args:
        volumes: Each volume and its patient.

    Raises:
        DataError: Volumes of different patients, as their PatientID says, have one name.
    """
    seen: defaultdict[str, list[VolumeFile]] = defaultdict(list)
    names = []
    for volume, patient in volumes:
        seen[patient].append(volume)
        identifiers = {each.series.headers[0].patient_id for each in seen[patient] if each.series}
        if len(identifiers) > 1:
            raise DataError(
                f"{seen[patient][0].label} and {volume.label} would both be the patient {patient}, "
                "but have different PatientIDs: choose --patient-from patient-id or "
                "--patient-id-regex."
            )
        names.append(patient if len(seen[patient]) == 1 else f"{patient}-v{len(seen[patient])}")
    return names


def _check_identifiers(patient: str, volume: VolumeFile) -> None:
    """DataError if a patient's identifier contains a word of the name, or the birth date."""
    if not volume.series:
        return
    words = {part.lower() for part in re.split(r"[_.]", patient)}
    for identifier in map(str.lower, volume.series.headers[0].identifiers):
        is_contained = identifier in patient.lower() and len(identifier) >= _MIN_CONTAINED
        if is_contained or identifier in words:
            what = "birth date" if _DATE.match(identifier) else "name"
            raise DataError(
                f"the patient {patient} of {volume.label} contains the {what} in its DICOM header: "
                "rename the folder, or choose --patient-from or --patient-id-regex."
            )
