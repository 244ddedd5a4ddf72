"""The files of an evaluation: one row per patient, and a summary of what was evaluated."""

import csv
import io
import json
from pathlib import Path

import pytest

from contract.confusion import ConfusionCounts
from tests.scores import surface_score
from tests.trainer.conftest import Prepared
from tests.trainer.evaluation.conftest import EvaluationResult
from trainer.evaluation.results import patients_csv
from trainer.evaluation.scores import PatientScore, SoftScore


def test_the_table_has_a_row_for_each_patient(done: EvaluationResult) -> None:
    text = done.destination.read("evaluation.csv").decode()
    rows = {row["patient"]: row for row in csv.DictReader(io.StringIO(text))}
    assert list(rows) == ["half", "invented", "missed", "quiet", "wide"]
    assert rows["half"]["dice"] == "0.75"
    assert (rows["half"]["tp"], rows["half"]["fp"], rows["half"]["fn"]) == ("300", "100", "100")
    assert rows["quiet"]["sensitivity"] == ""
    assert [rows[name]["empty"] for name in ("quiet", "half")] == ["yes", "no"]


def test_the_summary_names_what_it_is_of(
    done: EvaluationResult, thresholding: Path, prepared: Prepared
) -> None:
    summary = json.loads(done.destination.read("summary.json"))
    assert summary["dice"]["mean"] == pytest.approx(0.55)
    assert summary["empty_masks"]["patients"] == 2
    assert (summary["surfaces"]["distance_unit"], summary["surfaces"]["tolerance"]) == ("px", 2.0)
    assert summary["surfaces"]["empty"]["foreground"]["prediction_empty"] == 1
    assert summary["hd95"]["undefined"] == 2
    assert 0.0 < summary["soft"]["loss"] < 8.0
    assert list(summary["soft"]["dice_coef"]) == ["foreground"]
    assert (summary["patients"], summary["slices"], summary["split"]) == (5, 6, "test")
    assert summary["model"]["name"] == "thresholding"
    assert summary["model"]["bundle"] == str(thresholding)
    assert summary["dataset"]["fingerprint"] == prepared.dataset.fingerprint
    assert summary["dataset"]["training_fingerprint"] == "0123456789abcdef"
    assert summary["host_info"]["machine"]


def test_a_metric_of_the_table_has_six_digits_and_an_undefined_one_none() -> None:
    patients = [
        PatientScore("a", 3, (ConfusionCounts(tp=1, fp=2, fn=0, tn=7),), (surface_score(0.75),)),
        PatientScore("b,c", 1, (ConfusionCounts(tn=10),), (surface_score(0.0, None),)),
    ]
    soft = {"a": SoftScore(0.25, (0.75,)), "b,c": SoftScore(1 / 3, (1.0,))}
    assert patients_csv(patients, ["foreground"], soft, "mm").decode().splitlines() == [
        "patient,class,slices,dice,iou,precision,sensitivity,specificity,volume_difference,"
        "surface_dice,hd95,tp,fp,fn,tn,empty,distance_unit,unmatched,soft_dice_coef,loss",
        "a,foreground,3,0.5,0.333333,0.333333,1,0.777778,2,0.75,1.5,1,2,0,7,no,mm,0,0.75,0.25",
        '"b,c",foreground,1,1,1,,,1,,0,,0,0,0,10,yes,mm,0,1,0.333333',
    ]


def test_a_patient_has_a_row_for_each_class_and_their_mean() -> None:
    counts = ConfusionCounts(tp=1, fp=1, tn=8), ConfusionCounts(tp=3, tn=7)
    soft = {"a": SoftScore(0.3, (0.5, 1.0))}
    patient = PatientScore("a", 2, counts, (surface_score(0.5, 2.0), surface_score(1.0, 0.0)))
    table = patients_csv([patient], ["liver", "kidney"], soft, "px").decode()
    assert table.splitlines()[1:] == [
        "a,liver,2,0.666667,0.5,0.5,1,0.888889,1,0.5,2,1,1,0,8,no,px,0,0.5,",
        "a,kidney,2,1,1,1,1,1,0,1,0,3,0,0,7,no,px,0,1,",
        "a,mean,2,0.833333,0.75,0.75,1,0.944444,0.5,0.75,1,,,,,no,px,0,0.75,0.3",
    ]
