"""The Dice of files and of patients."""

import re
from pathlib import Path

import pytest

from contract.confusion import ConfusionCounts
from contract.errors import ConfigError, DataError
from contract.storage import LocalStorage
from inference.batch.scoring import GroundTruth, open_ground_truth

PERFECT = ConfusionCounts(tp=10)
MISSED = ConfusionCounts(fn=10)


def ground_truth(patient_regex: str | None) -> GroundTruth:
    pattern = re.compile(patient_regex) if patient_regex else None
    return GroundTruth(LocalStorage(Path("/nowhere")), [], 127, pattern)


def test_without_a_pattern_each_file_has_its_own_dice() -> None:
    scores = ground_truth(None).scores({"P2-1.png": PERFECT, "P1-1.png": MISSED})
    assert [(score.name, score.dice) for score in scores] == [("P1-1.png", 0.0), ("P2-1.png", 1.0)]


@pytest.mark.parametrize("pattern", [r"^P\d", r"^(P\d)-"])
def test_pixels_are_counted_over_all_slices_of_a_patient(pattern: str) -> None:
    counts = {"ct/P1-1.png": PERFECT, "ct/P1-2.png": MISSED, "P2-1.png": PERFECT}
    scores = ground_truth(pattern).scores(counts)
    assert [score.name for score in scores] == ["P1", "P2"]
    assert scores[0].dice == pytest.approx(2 * 10 / (2 * 10 + 10))
    assert scores[1].dice == 1.0


def test_a_name_without_a_patient_and_an_invalid_pattern_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"finds no patient in ct/x\.png"):
        ground_truth(r"^P\d").scores({"ct/x.png": PERFECT})
    with pytest.raises(
        ConfigError, match=r"--patient-regex '\(' is not a valid regular expression"
    ):
        open_ground_truth(str(tmp_path), 127, "(")
