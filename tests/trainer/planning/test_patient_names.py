"""Patients are recognized in the names of slices."""

import pytest

from contract.errors import DataError
from trainer.data.splits import Split, find_patient
from trainer.planning.patient_names import choose_patient_regex

Names = dict[Split | None, list[str]]


@pytest.mark.parametrize(
    ("names", "patient"),
    [
        (["PANCREAS_0002-1074", "PANCREAS_0002-cropped-0-9", "PANCREAS_0003-1"], "PANCREAS_0002"),
        (["P01_003", "P01_004", "P02_001", "P03_001"], "P01"),
        (["case_001_012", "case_001_013", "case_002_01", "case_003_01"], "case_001"),
        (["s1 z1", "s1 z2", "s2 z1", "s3 z1"], "s1"),
    ],
)
def test_the_patient_is_found_in_usual_names(names: list[str], patient: str) -> None:
    regex = choose_patient_regex({None: names}, 2)
    assert find_patient(names[0], regex) == patient


def test_a_patient_of_one_split_is_not_in_another() -> None:
    # Before the first hyphen is the hospital, which both splits have.
    names: Names = {"train": ["A-1_01", "A-1_02"], "valid": ["A-2_01", "A-2_02"], "test": []}
    regex = choose_patient_regex(names, 2)
    assert {find_patient(name, regex) for name in names["train"]} == {"A-1"}


def test_slices_that_are_split_already_may_be_patients() -> None:
    names: Names = {"train": ["img_1", "img_2"], "valid": ["img_3"]}
    assert find_patient("img_1", choose_patient_regex(names, 2)) == "img_1"


def test_numbered_slices_without_a_patient_are_not_split() -> None:
    with pytest.raises(DataError, match=r"'img_1' is the patient: set data\.patient_id_regex"):
        choose_patient_regex({None: ["img_1", "img_2", "img_3", "img_4"]}, 3)
