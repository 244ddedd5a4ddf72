"""The preview images of an evaluation, and the order of the slices in them."""

from pathlib import Path

import numpy as np

from contract.imaging.encode import decode_png
from contract.storage import open_storage
from tests.scores import score
from tests.trainer.conftest import Prepared
from tests.trainer.evaluation.conftest import EvaluationResult
from trainer.data.dataset_index import SliceRecord
from trainer.evaluation.previews import interleave_patients, slice_sheet, volume_sheet
from trainer.evaluation.slice_reader import Mask, SliceReader, load_saved_model
from trainer.visualization.overlays import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE


def test_the_pictures_are_written(done: EvaluationResult) -> None:
    for name in ("worst", "best", "worst-patients", "worst-patient", "best-patient"):
        png = done.destination.read(f"{name}.png")
        assert png == done.evaluation.previews[name]
        assert decode_png(png).shape[2] == 3


def test_a_first_two_of_every_patient_come_before_any_third() -> None:
    ranked = [score(f"p{number}", "p", 1, 1, 1) for number in range(5)]
    ranked += [score(f"q{number}", "q", 1, 1, 1) for number in range(3)]
    names = [one.slice.name for one in interleave_patients(ranked)]
    assert names == ["p0", "p1", "q0", "q1", "p2", "p3", "q2", "p4"]


def colors_in(png: bytes) -> dict[str, bool]:
    """Which outcomes are colored in an image of slices that are black elsewhere."""
    image = decode_png(png).astype(np.int64)
    colors = {"true": TRUE_POSITIVE, "missed": FALSE_NEGATIVE, "invented": FALSE_POSITIVE}
    tints = {
        name: [(0.4 * grey + 0.6 * np.array(color)).round() for grey in (40, 200)]
        for name, color in colors.items()
    }
    return {
        name: any(bool((abs(image - tint).max(axis=-1) <= 1).any()) for tint in of_color)
        for name, of_color in tints.items()
    }


def test_a_slice_is_drawn_with_its_prediction_and_a_close_up(
    done: EvaluationResult, prepared: Prepared, thresholding: Path
) -> None:
    reader = SliceReader(open_storage(prepared.dataset.root), prepared.dataset.masks, (0.0, 255.0))
    predict_slices = load_saved_model(thresholding)

    def find_mask(record: SliceRecord) -> Mask:
        return predict_slices(reader.read(record)[1][None])[0][0]

    scores = {one.slice.name: one for one in done.evaluation.slices}
    expected = {
        "half-1": {"true": True, "missed": False, "invented": False},
        "half-2": {"true": True, "missed": True, "invented": True},
        "invented-1": {"true": False, "missed": False, "invented": True},
        "missed-1": {"true": False, "missed": True, "invented": False},
    }
    for name, colors in expected.items():
        sheet = slice_sheet([scores[name]], reader, find_mask)
        assert colors_in(sheet) == colors, name
        # The slice and, to its right, its close-up.
        assert decode_png(sheet).shape[1] == 2 * (256 + 6) + 6
    volume = volume_sheet("half", done.evaluation.slices, reader, find_mask)
    assert colors_in(volume) == {"true": True, "missed": True, "invented": True}
    missed = volume_sheet("missed", done.evaluation.slices, reader, find_mask)
    assert colors_in(missed) == {"true": False, "missed": True, "invented": False}
