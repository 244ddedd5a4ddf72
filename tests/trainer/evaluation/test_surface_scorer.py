"""Slices become volumes in mm if their spacing is known, and else stay slices in pixels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.volume_records import volume_record
from trainer.data.dataset_index import SliceRecord
from trainer.data.importers.slice_files import VolumeRecord
from trainer.evaluation.surface_distances import measure_distances, score_surfaces
from trainer.evaluation.surface_scorer import SurfaceScorer, find_distance_unit

Mask = NDArray[np.uint8]

# A gantry that was tilted: a step to the next slice also moves along the rows.
AXES = np.array([[0.0, 0.0, 0.7], [0.4, 0.7, 0.0], [2.5, 0.0, 0.0]])
RNG = np.random.default_rng(3)


def tilted_record(name: str) -> VolumeRecord:
    axes = [(a, b, c) for a, b, c in AXES.tolist()]
    return volume_record(name, name, (6, 20, 24), (0.7, 0.7, 2.5), axes)


def record(name: str, patient: str) -> SliceRecord:
    return SliceRecord(name, patient, "test", f"images/{name}.tif", f"{name}.png", 20, 24, (0.1,))


def random_volume() -> Mask:
    """Two classes in a part of the volume; the last slice is empty."""
    volume = np.zeros((6, 20, 24), np.uint8)
    volume[1:5, 4:15, 3:20] = RNG.integers(0, 3, (4, 11, 17))
    return volume


def test_a_volume_is_measured_in_mm_although_it_is_added_in_any_order() -> None:
    prediction, y_true = random_volume(), random_volume()
    slices = [(record(f"a-{z:04d}", "a"), prediction[z], y_true[z]) for z in range(6)]
    slices.append((record("a-crop40-0002", "a"), y_true[0], y_true[2]))
    other = record("b-0000", "b")
    records = [other, *(each for each, _, _ in slices)]
    volumes = {name: tilted_record(name) for name in ("a", "b")}
    scorer = SurfaceScorer(records, volumes, 2, "mm", tolerance=1.0)
    for index in (3, 0, 6, 5, 1, 4, 2):
        assert "a" not in scorer.scores
        scorer.add_slice(*slices[index])
    expected = tuple(
        score_surfaces([measure_distances(prediction == c, y_true == c, AXES)], 1.0) for c in (1, 2)
    )
    assert scorer.scores == {"a": expected}
    scorer.add_slice(other, np.zeros((20, 24), np.uint8), np.zeros((20, 24), np.uint8))
    assert [(each.surface_dice, each.hd95) for each in scorer.scores["b"]] == [(1.0, 0.0)] * 2


def test_without_spacing_contours_are_compared_within_their_slice() -> None:
    y_true = np.zeros((20, 24), np.uint8)
    y_true[4:10, 4:10] = 1
    shifted, nothing = np.roll(y_true, 3, axis=1), np.zeros_like(y_true)
    # The numbers in the names mean nothing here: the mask of a-0002 is not that of a-0001.
    slices = [
        (record("a-0000", "a"), shifted, y_true),
        (record("a-0001", "a"), y_true, nothing),
        (record("a-0002", "a"), nothing, y_true),
    ]
    records = [each for each, _, _ in slices]
    scorer = SurfaceScorer(records, {"a": tilted_record("a")}, 1, "px", tolerance=2.0)
    for each in slices:
        scorer.add_slice(*each)
    (score,) = scorer.scores["a"]
    assert score.hd95 == pytest.approx(3.0)
    assert score.unmatched == 2
    alone = score_surfaces([measure_distances(shifted > 0, y_true > 0, np.eye(2))], 2.0)
    # The contours of 20 pixels in the other slices are outside of the tolerance.
    assert score.surface_dice == pytest.approx(alone.surface_dice * 40 / 80)


def test_distances_are_in_mm_if_the_volumes_of_all_slices_are_known() -> None:
    known, foreign = record("a-0000", "a"), record("foreign-0000", "foreign")
    volumes = {"a": tilted_record("a")}
    assert find_distance_unit([known], volumes) == "mm"
    assert find_distance_unit([known, foreign], volumes) == "px"
    assert find_distance_unit([known], {}) == "px"
