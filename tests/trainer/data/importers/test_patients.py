"""Patients are found in names, never contain what identifies a person, and are never mixed up."""

from pathlib import Path

import pytest

from contract.errors import ConfigError, DataError
from contract.imaging.volume_files import VolumeFile, find_volumes
from tests.volumes import BIRTH_DATE, PATIENT_ID, standard_volume, write_nifti, write_series
from trainer.data.importers.patients import PatientRule, check_regex, name_volumes

SMALL = standard_volume((2, 4, 4))


def series_named(folder: Path, **elements: object) -> VolumeFile:
    write_series(folder, SMALL, **elements)
    (volume,) = find_volumes(folder).volumes
    return volume


def test_the_patient_is_the_name_without_hyphens(tmp_path: Path) -> None:
    volume = series_named(tmp_path / "case-07 (äü)")
    assert PatientRule().patient(volume) == "case_07"
    assert PatientRule("patient-id").patient(volume) == PATIENT_ID
    assert PatientRule(regex=r"case-(\d+)").patient(volume) == "07"


def test_a_patient_that_is_not_found_is_an_error(tmp_path: Path) -> None:
    (nifti,) = find_volumes(write_nifti(tmp_path / "---.nii.gz", SMALL)).volumes
    with pytest.raises(DataError, match="no letter or digit in its patient '---'"):
        PatientRule().patient(nifti)
    with pytest.raises(DataError, match=r"has no PatientID: leave out --patient-from"):
        PatientRule("patient-id").patient(nifti)
    with pytest.raises(DataError, match=r"'\^P' finds no patient in ---\.nii\.gz"):
        PatientRule(regex="^P").patient(nifti)
    with pytest.raises(ConfigError, match=r"--patient-id-regex '\(' is not a valid regular"):
        check_regex("(")


@pytest.mark.parametrize(
    ("name", "what"),
    [("JANE-1", "name"), (f"x{BIRTH_DATE}", "birth date"), ("a_doe", "name"), ("xjanex", "name")],
)
def test_names_and_birth_dates_are_not_patients(name: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"contains the {what} in its DICOM header"):
        PatientRule().patient(series_named(tmp_path / name))


def test_a_pseudonym_may_be_the_name_in_the_header(tmp_path: Path) -> None:
    volume = series_named(tmp_path / "P_1", PatientName="P_1", PatientID="P_1")
    assert PatientRule().patient(volume) == "P_1"


def test_several_volumes_of_a_patient_have_different_names(tmp_path: Path) -> None:
    volumes = [(series_named(tmp_path / f"P{number}"), "P") for number in range(3)]
    assert name_volumes(volumes) == ["P", "P-v2", "P-v3"]
    other = series_named(tmp_path / "other", PatientID="other")
    with pytest.raises(DataError, match="would both be the patient P, but have different Pat"):
        name_volumes([*volumes, (other, "P")])
