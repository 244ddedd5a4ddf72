import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import read_manifest
from contract.confusion import ConfusionCounts
from contract.errors import BundleError, DataError
from contract.imaging.encode import decode_png
from contract.storage import LocalStorage
from trainer.data.dataset_index import SliceRecord
from trainer.evaluation import evaluate as evaluation_of
from trainer.evaluation.evaluate import check_patient_leakage, evaluate
from trainer.evaluation.previews import interleave_patients
from trainer.evaluation.scores import Evaluation, SliceScore, rank_slices
from trainer.evaluation.slice_reader import batch_by_shape


@dataclasses.dataclass(frozen=True)
class Result:
    """An evaluation, what it wrote, and how many slices it reported."""

    evaluation: Evaluation
    destination: LocalStorage
    advanced: int


@pytest.fixture(scope="module")
def done(prepared, thresholding, tmp_path_factory) -> Result:
    destination = LocalStorage(tmp_path_factory.mktemp("evaluation"))
    steps: list[tuple[object, ...]] = []
    evaluation = evaluate(
        thresholding,
        prepared.dataset,
        "test",
        prepared.config.data,
        prepared.config.predict,
        destination,
        lambda *progress: steps.append(progress),
        save_masks=True,
    )
    return Result(evaluation, destination, len(steps))


def test_every_patient_is_scored_over_all_slices(done):
    dice = {one.patient: one.counts.dice for one in done.evaluation.patients}
    assert dice == {
        # 200 of 200 pixels in one slice, 100 of 200 with 100 wrong ones in the other.
        "half": pytest.approx(2 * 300 / (2 * 300 + 100 + 100)),
        "invented": 0.0,
        "missed": 0.0,
        "quiet": 1.0,
        "wide": 1.0,
    }
    assert {one.patient: one.slices for one in done.evaluation.patients}["half"] == 2


def test_all_figures_and_their_spread(done):
    dice, sensitivity = (done.evaluation.summary_of(name) for name in ("dice", "sensitivity"))
    assert dice.mean == pytest.approx((0.75 + 0 + 0 + 1 + 1) / 5)
    assert (dice.min, dice.max, dice.defined, dice.undefined) == (0.0, 1.0, 5, 0)
    assert sensitivity.mean == pytest.approx((0.75 + 0 + 1) / 3)
    assert (sensitivity.defined, sensitivity.undefined) == (3, 2)


def test_the_empty_case_is_counted(done):
    counts = done.evaluation.empty_masks
    assert (counts.patients, counts.patients_predicted) == (2, 1)
    assert (counts.slices, counts.slices_predicted) == (2, 1)


def test_slices_stand_in_the_order_of_the_dataset(done, prepared):
    assert [score.slice for score in done.evaluation.slices] == list(
        prepared.dataset.select("test")
    )
    assert done.advanced == len(done.evaluation.slices)


def test_the_table_has_a_row_for_each_patient(done):
    text = done.destination.read("evaluation.csv").decode()
    rows = {row["patient"]: row for row in csv.DictReader(io.StringIO(text))}
    assert list(rows) == ["half", "invented", "missed", "quiet", "wide"]
    assert rows["half"]["dice"] == "0.75"
    assert (rows["half"]["tp"], rows["half"]["fp"], rows["half"]["fn"]) == ("300", "100", "100")
    assert rows["quiet"]["sensitivity"] == ""
    assert [rows[name]["empty"] for name in ("quiet", "half")] == ["yes", "no"]


def test_the_summary_names_what_it_is_of(done, thresholding, prepared):
    summary = json.loads(done.destination.read("summary.json"))
    assert summary["dice"]["mean"] == pytest.approx(0.55)
    assert summary["empty_masks"]["patients"] == 2
    assert (summary["patients"], summary["slices"], summary["split"]) == (5, 6, "test")
    assert summary["model"]["name"] == "thresholding"
    assert summary["model"]["bundle"] == str(thresholding)
    assert summary["dataset"]["fingerprint"] == prepared.dataset.fingerprint
    assert summary["dataset"]["training_fingerprint"] == "0123456789abcdef"
    assert summary["host_info"]["machine"]


def test_the_pictures_are_written(done):
    for name in ("worst", "best", "worst-patient", "best-patient"):
        png = done.destination.read(f"{name}.png")
        assert png == done.evaluation.previews[name]
        assert decode_png(png).shape[2] == 3


def test_predicted_masks_are_kept_on_request(done, prepared, thresholding, tmp_path):
    names = {entry.key for entry in done.destination.list_objects("masks")}
    assert names == {f"masks/{case.name}.png" for case in prepared.dataset.select("test")}
    mask = decode_png(done.destination.read("masks/half-2.png"))
    assert mask.shape == (40, 60, 3)
    assert (np.unique(mask) == [0, 255]).all()
    assert (mask[10:20, 20:40] == 255).all()
    without = LocalStorage(tmp_path)
    config = prepared.config
    store = LocalStorage(thresholding)
    evaluate(store, prepared.dataset, "valid", config.data, config.predict, without)
    assert without.list_objects("masks") == []
    assert without.exists("worst-patient.png")
    # With one patient the worst is the best.
    assert not without.exists("best-patient.png")


def test_an_empty_split_is_rejected(prepared, thresholding, tmp_path):
    config = prepared.config
    empty = dataclasses.replace(prepared.dataset, slices=prepared.dataset.select("train"))
    with pytest.raises(DataError, match=r"the test split of .* is empty"):
        evaluate(
            thresholding,
            empty,
            "test",
            config.data,
            config.predict,
            LocalStorage(tmp_path),
        )


def test_a_damaged_bundle_is_rejected(prepared, thresholding, tmp_path):
    damaged = shutil.copytree(thresholding, tmp_path / "damaged")
    (damaged / "weights.npz").write_bytes(b"other")
    config = prepared.config
    with pytest.raises(BundleError, match=r"weights\.npz"):
        evaluate(
            Path(damaged),
            prepared.dataset,
            "test",
            config.data,
            config.predict,
            LocalStorage(tmp_path / "out"),
        )
    assert not (tmp_path / "out").exists()


def test_a_patient_it_was_trained_on_is_not_scored_as_new(prepared, thresholding, tmp_path):
    """As if a pool was split again in another storage."""
    splits = dataclasses.replace(prepared.dataset.select("test")[0], patient="a")
    torn = dataclasses.replace(
        prepared.dataset, slices=(splits, *prepared.dataset.select("test")[1:])
    )
    config, out = prepared.config, tmp_path / "out"
    with pytest.raises(DataError, match=r"was trained on patients of the test split .*\(a\)"):
        evaluate(
            thresholding,
            torn,
            "test",
            config.data,
            config.predict,
            LocalStorage(out),
        )
    assert not out.exists()


@pytest.mark.parametrize(
    ("split", "patient", "rejected"),
    [
        ("test", "d", True),
        ("valid", "a", True),
        ("valid", "d", False),
        ("train", "a", False),
        ("test", "new", False),
    ],
)
def test_a_split_may_hold_none_of_an_earlier_one(
    split, patient, rejected, prepared, thresholding, caplog
):
    manifest = read_manifest(LocalStorage(thresholding))
    one = dataclasses.replace(prepared.dataset.slices[0], split=split, patient=patient)
    dataset = dataclasses.replace(prepared.dataset, slices=(one,), fingerprint=manifest.dataset)
    if rejected:
        with pytest.raises(DataError, match=r"was trained on patients.*allow_patient_overlap"):
            check_patient_leakage(manifest, dataset, split, prepared.config.data)
        allowed = prepared.config.with_values({"data.allow_patient_overlap": True})
        check_patient_leakage(manifest, dataset, split, allowed.data)
        assert "not of new patients" in caplog.text
    else:
        check_patient_leakage(manifest, dataset, split, prepared.config.data)
        assert caplog.text == ""


def test_slices_that_are_not_those_of_the_training_are_reported(prepared, thresholding, caplog):
    manifest = read_manifest(LocalStorage(thresholding))
    check_patient_leakage(manifest, prepared.dataset, "test", prepared.config.data)
    assert f"dataset {prepared.dataset.fingerprint}) are not those" in caplog.text


def case(name: str, patient: str = "p") -> SliceRecord:
    return SliceRecord(name, patient, "test", f"{name}.png", f"{name}-mask.png", 4, 4, 0.1)


def test_batches_hold_slices_of_one_shape_and_type():
    kinds = [
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 6, 1), np.uint8),
        np.zeros((4, 4, 1), np.int32),
    ]
    reads = [
        (case(str(number)), kinds[number % 3], np.zeros((4, 4), np.uint8)) for number in range(20)
    ]
    made = list(batch_by_shape(reads, 3))
    assert all(len({(image.shape, image.dtype) for _, image, _ in batch}) == 1 for batch in made)
    assert max(len(batch) for batch in made) == 3
    assert sorted(int(one.name) for batch in made for one, _, _ in batch) == list(range(20))


def score(name: str, patient: str, tp: int, fp: int, fn: int) -> SliceScore:
    return SliceScore(case(name, patient), ConfusionCounts(tp, fp, fn, 1000))


def test_the_worst_slices_come_first_and_quiet_ones_not_at_all():
    scores = [
        score("good", "p", 10, 1, 1),
        score("quiet", "p", 0, 0, 0),
        score("missed", "p", 0, 0, 10),
        score("invented", "p", 0, 50, 0),
    ]
    names = [one.slice.name for one in rank_slices(scores)]
    assert names == ["invented", "missed", "good"]


def test_quiet_slices_are_shown_if_there_is_nothing_else():
    quiet = [score("quiet", "p", 0, 0, 0)]
    assert rank_slices(quiet) == quiet


def test_a_first_two_of_every_patient_come_before_any_third():
    ranked = [score(f"p{number}", "p", 1, 1, 1) for number in range(5)]
    ranked += [score(f"q{number}", "q", 1, 1, 1) for number in range(3)]
    names = [one.slice.name for one in interleave_patients(ranked)]
    assert names == ["p0", "p1", "q0", "q1", "p2", "p3", "q2", "p4"]


def test_no_keras_is_needed():
    assert not hasattr(evaluation_of, "keras")
