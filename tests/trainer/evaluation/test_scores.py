"""Scores of slices become those of patients; the worst come first."""

import pytest

from contract.confusion import ConfusionCounts
from tests.scores import score, surface_score
from tests.trainer.evaluation.conftest import EvaluationResult
from trainer.evaluation.scores import (
    METRICS,
    EmptySurfaceCounts,
    PatientScore,
    rank_patients,
    rank_slices,
    score_patients,
)


def test_all_figures_and_their_spread(done: EvaluationResult) -> None:
    dice, sensitivity = (done.evaluation.summary_of(name) for name in ("dice", "sensitivity"))
    assert dice.mean == pytest.approx((0.75 + 0 + 0 + 1 + 1) / 5)
    assert (dice.min, dice.max, dice.defined, dice.undefined) == (0.0, 1.0, 5, 0)
    assert sensitivity.mean == pytest.approx((0.75 + 0 + 1) / 3)
    assert (sensitivity.defined, sensitivity.undefined) == (3, 2)


def test_the_empty_case_is_counted(done: EvaluationResult) -> None:
    counts = done.evaluation.empty_masks
    assert (counts.patients, counts.patients_predicted) == (2, 1)
    assert (counts.slices, counts.slices_predicted) == (2, 1)


def test_patients_without_surfaces_are_counted_by_cause(done: EvaluationResult) -> None:
    """Both masks of "quiet" are empty, one of "invented" and one of "missed"."""
    assert done.evaluation.empty_surfaces == {"foreground": EmptySurfaceCounts(1, 1, 1, 0, 2)}
    hd95, surface_dice = (done.evaluation.summary_of(name) for name in ("hd95", "surface_dice"))
    assert (hd95.defined, hd95.undefined) == (3, 2)
    assert (surface_dice.defined, surface_dice.min) == (5, 0.0)
    values = {one.patient: one.metric("hd95") for one in done.evaluation.patients}
    # Of "half", one of two contours is moved by 10 of its 20 pixels.
    assert (values["quiet"], values["wide"], values["half"]) == (0.0, 0.0, 10.0)


def test_the_worst_slices_come_first_and_quiet_ones_not_at_all() -> None:
    scores = [
        score("good", "p", 10, 1, 1),
        score("quiet", "p", 0, 0, 0),
        score("missed", "p", 0, 0, 10),
        score("invented", "p", 0, 50, 0),
    ]
    names = [one.slice.name for one in rank_slices(scores)]
    assert names == ["invented", "missed", "good"]


def test_quiet_slices_are_shown_if_there_is_nothing_else() -> None:
    quiet = [score("quiet", "p", 0, 0, 0)]
    assert rank_slices(quiet) == quiet


def test_of_equal_slices_the_one_with_more_wrong_pixels_comes_first() -> None:
    scores = [score("few", "p", 0, 0, 3), score("many", "p", 0, 9, 0), score("some", "p", 0, 2, 3)]
    assert [one.slice.name for one in rank_slices(scores)] == ["many", "some", "few"]


def test_the_counts_of_a_patient_are_the_sums_of_the_slices() -> None:
    scores = [score("1", "q", 1, 2, 3), score("2", "p", 4, 0, 0), score("3", "q", 10, 20, 30)]
    surfaces = {"p": (surface_score(0.5),), "q": (surface_score(0.25),)}
    assert score_patients(scores, surfaces) == (
        PatientScore("p", 1, (ConfusionCounts(4, 0, 0, 1000),), surfaces["p"]),
        PatientScore("q", 2, (ConfusionCounts(11, 22, 33, 2000),), surfaces["q"]),
    )


def test_patients_are_ranked_by_dice_and_then_by_name() -> None:
    patients = score_patients(
        [score("1", "c", 1, 1, 0), score("2", "b", 0, 1, 0), score("3", "a", 1, 1, 0)],
        dict.fromkeys("abc", (surface_score(0.5),)),
    )
    assert [patient.patient for patient in rank_patients(patients)] == ["b", "a", "c"]


def test_a_table_in_python_has_the_values_of_the_metrics(done: EvaluationResult) -> None:
    rows = {row["patient"]: row for row in done.evaluation.table()}
    assert list(rows["half"]) == ["patient", "slices", *METRICS]
    assert (rows["half"]["slices"], rows["half"]["dice"]) == (2, 0.75)
    assert rows["quiet"]["sensitivity"] is None
