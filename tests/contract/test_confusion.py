import numpy as np
import pytest

from contract.confusion import ConfusionCounts, confusion_counts


def test_counts_of_two_masks():
    target = np.array([[1, 1, 0], [1, 0, 0]])
    prediction = np.array([[1, 0, 0], [255, 7, 0]])
    assert confusion_counts(prediction, target) == ConfusionCounts(tp=2, fp=1, fn=1, tn=2)


def test_scores_follow_from_the_counts():
    counts = ConfusionCounts(tp=6, fp=2, fn=4, tn=88)
    assert counts.dice == pytest.approx(12 / 18)
    assert counts.iou == pytest.approx(6 / 12)
    assert counts.sensitivity == pytest.approx(0.6)
    assert counts.specificity == pytest.approx(88 / 90)
    assert counts.precision == pytest.approx(6 / 8)
    assert counts.volume_difference == pytest.approx(-2 / 10)


def test_the_volume_is_scored_and_not_the_mean_of_its_slices():
    large, small = (
        ConfusionCounts(tp=90, fp=0, fn=10, tn=0),
        ConfusionCounts(tp=0, fp=2, fn=2, tn=96),
    )
    assert (large + small).dice == pytest.approx(180 / 194)
    assert (large + small).dice > (large.dice + small.dice) / 2


def test_an_empty_patient_left_alone_is_right():
    counts = confusion_counts(np.zeros((4, 4)), np.zeros((4, 4)))
    assert counts.empty
    assert counts.predicted_empty
    assert (counts.dice, counts.iou) == (1.0, 1.0)
    assert counts.sensitivity is None
    assert counts.precision is None
    assert counts.volume_difference is None
    assert counts.specificity == 1.0


def test_an_invented_organ_costs_everything():
    counts = confusion_counts(np.eye(4), np.zeros((4, 4)))
    assert counts.empty
    assert not counts.predicted_empty
    assert (counts.dice, counts.iou) == (0.0, 0.0)
    assert counts.sensitivity is None


def test_specificity_is_undefined_without_background():
    assert confusion_counts(np.ones((2, 2)), np.ones((2, 2))).specificity is None


def test_masks_of_different_shapes_are_a_bug():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        confusion_counts(np.zeros((2, 2)), np.zeros((2, 3)))
