"""The Dice of files and of patients."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from contract.confusion import ConfusionCounts
from contract.errors import ConfigError, DataError
from contract.imaging.encode import encode_mask
from contract.imaging.mask_encoding import MaskEncoding, threshold_encoding
from contract.imaging.segmentation_class import single_foreground
from contract.storage import LocalStorage
from inference.batch.predict_files import OutputFiles, PredictionJob
from inference.batch.scoring import (
    DiceScore,
    GroundTruth,
    mean_dice,
    open_ground_truth,
    score_files,
    scores_csv,
)

PERFECT = (ConfusionCounts(tp=10),)
MISSED = (ConfusionCounts(fn=10),)


def ground_truth(
    patient_regex: str | None = None, folder: Path = Path("/nowhere"), keys: Sequence[str] = ()
) -> GroundTruth:
    pattern = re.compile(patient_regex) if patient_regex else None
    return GroundTruth(LocalStorage(folder), keys, threshold_encoding(127), pattern)


def test_without_a_patient_regex_each_file_has_its_own_dice() -> None:
    scores = ground_truth().scores({"P2-1.png": PERFECT, "P1-1.png": MISSED})
    assert scores == [DiceScore("P1-1.png", (0.0,)), DiceScore("P2-1.png", (1.0,))]
    assert mean_dice(scores) == 0.5
    assert scores_csv("file", scores, single_foreground()).decode().splitlines() == [
        "file,dice",
        "P1-1.png,0.000000",
        "P2-1.png,1.000000",
    ]


@pytest.mark.parametrize("pattern", [r"^P\d", r"^(P\d)-"])
def test_the_dice_of_a_patient_is_over_all_pixels_of_its_slices(pattern: str) -> None:
    counts = {"ct/P1-1.png": PERFECT, "ct/P1-2.png": MISSED, "P2-1.png": PERFECT}
    scores = ground_truth(pattern).scores(counts)
    assert [score.name for score in scores] == ["P1", "P2"]
    assert scores[0].dice == pytest.approx(2 * 10 / (2 * 10 + 10))
    assert scores[1].dice == 1.0


def test_a_file_name_without_a_patient_and_an_invalid_regex_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"finds no patient in ct/x\.png"):
        ground_truth(r"^P\d").scores({"ct/x.png": PERFECT})
    with pytest.raises(
        ConfigError, match=r"--patient-id-regex '\(' is not a valid regular expression"
    ):
        open_ground_truth(str(tmp_path), MaskEncoding(single_foreground()), 127, "(")


def test_written_masks_are_compared_with_the_ground_truth(tmp_path: Path) -> None:
    output, mask_folder = LocalStorage(tmp_path / "out"), tmp_path / "masks"
    predicted, expected = np.zeros((2, 4, 4), np.uint8)
    predicted[0], expected[:2] = 1, 1
    for key in ("a", "b", "c"):
        output.write(f"{key}.png", encode_mask(predicted, single_foreground()))
    LocalStorage(mask_folder).write("a.png", encode_mask(expected, single_foreground()))
    LocalStorage(mask_folder).write("b.png", encode_mask(expected[:3], single_foreground()))
    job = PredictionJob(
        LocalStorage(tmp_path / "slices"), output, OutputFiles(single_foreground(), (0.0, 255.0))
    )
    progress: list[int] = []

    counts, failures = score_files(
        ground_truth(folder=mask_folder, keys=["a.png", "b.png"]),
        job,
        ["a.jpg", "b.jpg", "c.jpg"],
        lambda done, total, note: progress.append(done),
    )
    assert counts == {"a.jpg": (ConfusionCounts(tp=4, fn=4, tn=8),)}
    assert set(failures) == {"b.jpg", "c.jpg"}
    assert "4 x 3 pixels, the slice has 4 x 4" in failures["b.jpg"]
    assert "there is no ground truth mask c in" in failures["c.jpg"]
    assert progress == [1, 2, 3]
