import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import ParentBundle, read_manifest
from contract.errors import BundleError, DataError
from contract.imaging.encode import decode_png
from contract.storage import LocalStorage
from trainer.evaluation import evaluate as evaluation_of
from trainer.evaluation.evaluate import check_patient_leakage, evaluate


def test_every_patient_is_scored_over_all_slices(done):
    dice = {one.patient: one.metric("dice") for one in done.evaluation.patients}
    assert dice == {
        # 200 of 200 pixels in one slice, 100 of 200 with 100 wrong ones in the other.
        "half": pytest.approx(2 * 300 / (2 * 300 + 100 + 100)),
        "invented": 0.0,
        "missed": 0.0,
        "quiet": 1.0,
        "wide": 1.0,
    }
    assert {one.patient: one.slices for one in done.evaluation.patients}["half"] == 2


def test_slices_stand_in_the_order_of_the_dataset(done, prepared):
    assert [score.slice for score in done.evaluation.slices] == list(
        prepared.dataset.select("test")
    )
    assert done.advanced == len(done.evaluation.slices)


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


def test_patients_of_a_bundle_that_it_was_started_from_are_not_new(prepared, thresholding):
    manifest = read_manifest(LocalStorage(thresholding))
    fields = {"name": "before", "digest": "d", "fingerprint": "f", "dataset": "x"}
    parent = ParentBundle(patients={"train": ("half",), "valid": ("wide",)}, **fields)
    tuned = manifest.model_copy(update={"parents": (parent,)})
    for patient in ("half", "wide"):
        one = dataclasses.replace(prepared.dataset.slices[0], split="test", patient=patient)
        dataset = dataclasses.replace(prepared.dataset, slices=(one,))
        check_patient_leakage(manifest, dataset, "test", prepared.config.data)
        match = rf"'thresholding' or a bundle that its training started from .*\({patient}\)"
        with pytest.raises(DataError, match=match):
            check_patient_leakage(tuned, dataset, "test", prepared.config.data)


def test_slices_that_are_not_those_of_the_training_are_reported(prepared, thresholding, caplog):
    manifest = read_manifest(LocalStorage(thresholding))
    check_patient_leakage(manifest, prepared.dataset, "test", prepared.config.data)
    assert f"dataset {prepared.dataset.fingerprint}) are not those" in caplog.text


def test_no_keras_is_needed():
    assert not hasattr(evaluation_of, "keras")
