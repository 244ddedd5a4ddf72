"""Patients are found in names, never contain what identifies a person, and are never mixed up."""

from pathlib import Path

import pytest

from contract.errors import DataError
from contract.imaging.volume_files import VolumeFile, find_volumes
from tests.volumes import BIRTH_DATE, PATIENT_ID, standard_volume, write_nifti, write_series
from trainer.data.importers.patients import PatientRule, check_names, name_volumes

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


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("JANE-1", "name"),
        (f"x{BIRTH_DATE}", "birth date"),
        ("P1_1970-01-31", "birth date"),
        ("31.01.1970", "birth date"),
        ("01311970", "birth date"),
        ("a_doe", "name"),
        ("Do-e1", "name"),
        ("xjanex", "name"),
        (PATIENT_ID, "PatientID"),
        (f"x-{PATIENT_ID.lower()}", "PatientID"),
    ],
)
def test_names_birth_dates_and_patient_ids_are_not_patients(
    name: str, what: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"contains the {what} in its DICOM header"):
        PatientRule().patient(series_named(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("Smith-Jones^A", ["Smith-Jones", "smith_1", "SmithJones", "x-JONES"]),
        ("O'Brien^Pat", ["O'Brien", "obrien", "P_Brien"]),
        ("Müller^Jörg", ["Müller_1", "MULLER", "jorg"]),
        ("Li^Na", ["Li_7", "na-li", "LI"]),
        ("Casey^John", ["Casey", "john1"]),
        ("Patient^Smith", ["smith"]),
    ],
)
def test_names_are_found_in_any_notation(name: str, folders: list[str], tmp_path: Path) -> None:
    for folder in folders:
        volume = series_named(
            tmp_path / folder, PatientName=name, SpecificCharacterSet="ISO_IR 192"
        )
        with pytest.raises(DataError, match="contains the name in its DICOM header"):
            PatientRule().patient(volume)
    volume = series_named(
        tmp_path / "nal_ice7", PatientName=name, SpecificCharacterSet="ISO_IR 192"
    )
    assert PatientRule().patient(volume) == "nal_ice7"
    with pytest.raises(DataError, match=r"the segment .* contains the name in its DICOM header"):
        check_names(["liver", f"tumor of {folders[0]}"], volume)


def test_patient_ids_are_patients_of_pseudonyms_or_if_they_are_chosen(tmp_path: Path) -> None:
    volume = series_named(tmp_path / "x" / PATIENT_ID)
    with pytest.raises(DataError, match="or choose --patient-from patient-id if it is a pseudon"):
        PatientRule().patient(volume)
    assert PatientRule("patient-id").patient(volume) == PATIENT_ID
    volume = series_named(tmp_path / PATIENT_ID, PatientName="Anonymous^Patient 7")
    assert PatientRule().patient(volume) == PATIENT_ID


def test_a_pseudonym_may_be_the_name_in_the_header(tmp_path: Path) -> None:
    volume = series_named(tmp_path / "P_1", PatientName="P_1", PatientID="P_1")
    assert PatientRule().patient(volume) == "P_1"


def test_several_volumes_of_a_patient_have_different_names(tmp_path: Path) -> None:
    volumes = [(series_named(tmp_path / f"P{number}"), "P") for number in range(3)]
    assert name_volumes(volumes, PatientRule(regex="P"), {}) == ["P", "P-v2", "P-v3"]
    names = {volumes[0][0]: "P-v2", volumes[2][0]: "P"}
    assert name_volumes(volumes, PatientRule(regex="P"), names) == ["P-v2", "P-v3", "P"]


def test_volumes_of_different_patients_never_have_one_name(tmp_path: Path) -> None:
    first = series_named(tmp_path / "P-1")
    other_id = series_named(tmp_path / "b/P-1", PatientID="other")
    files = [
        find_volumes(write_nifti(tmp_path / name, SMALL)).volumes[0]
        for name in ("a/ct.nii.gz", "b/ct.nii.gz", "a/ct.nii")
    ]
    for volumes, reason in (
        ((first, other_id), "would both be the patient P, but have different PatientIDs"),
        ((first, series_named(tmp_path / "P_1")), "but are named 'P-1' and 'P_1'"),
        ((first, series_named(tmp_path / "p-1")), "but are named 'P-1' and 'p-1'"),
        (files[:2], "but are in different folders"),
    ):
        patients = ("P", "p" if "p-1" in reason else "P")
        with pytest.raises(DataError, match=reason):
            name_volumes(list(zip(volumes, patients, strict=True)), PatientRule(), {})
    both = [(volume, "ct") for volume in files]
    assert name_volumes(both, PatientRule(regex="ct"), {}) == ["ct", "ct-v2", "ct-v3"]
    assert name_volumes([both[0], both[2]], PatientRule(), {}) == ["ct", "ct-v2"]
