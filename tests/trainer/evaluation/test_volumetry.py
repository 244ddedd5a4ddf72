"""Volumes in milliliters, and their agreement by published formulas."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.confusion import ConfusionCounts
from contract.errors import StorageError
from contract.storage import LocalStorage
from tests.volume_records import volume_record
from trainer.data.dataset_index import SliceRecord
from trainer.data.importers.slice_files import VolumeRecord
from trainer.evaluation.scores import SliceScore
from trainer.evaluation.volumetry import (
    PatientVolume,
    intraclass_correlation,
    measure_volumes,
    pearson,
    summarize_agreement,
    write_volumetry,
)

# Shrout and Fleiss 1979, table 2: the first two of its four judges.
FIRST, SECOND = [9.0, 6.0, 8.0, 7.0, 10.0, 6.0], [2.0, 1.0, 4.0, 1.0, 5.0, 2.0]


def record(name: str, patient: str, row_mm: float) -> VolumeRecord:
    axes = [(0.0, 0.0, 1.0), (0.0, row_mm, 0.0), (2.0, 0.0, 0.0)]
    return volume_record(name, patient, (2, 10, 10), (row_mm, 1.0, 2.0), axes)


def score(name: str, **counts: int) -> SliceScore:
    patient = name.partition("-")[0]
    image = f"images/{name}.tif"
    return SliceScore(
        SliceRecord(name, patient, "test", image, f"masks/{name}.png", 10, 10, (0.1,)),
        (ConfusionCounts(**counts),),
    )


RECORDS = {each.name: each for each in (record("a", "a", 1.0), record("a-v2", "a", 5.0))}
SCORES = [
    score("a-0000", tp=300, fn=100),
    score("a-0001", tp=100, fp=50),
    score("a-v2-0000", tp=10, fp=10, fn=30),
    score("a-crop40-0000", tp=999),
    score("foreign-0000", tp=999),
]


def test_voxels_become_milliliters_of_their_own_volume() -> None:
    (volume,) = measure_volumes(SCORES, ["foreground"], RECORDS)
    assert (volume.patient, volume.class_name) == ("a", "foreground")
    assert volume.truth_ml == pytest.approx((500 * 2 + 40 * 10) / 1000)
    assert volume.predicted_ml == pytest.approx((450 * 2 + 20 * 10) / 1000)
    assert volume.difference_ml == pytest.approx(-0.3)
    assert volume.difference_percent == pytest.approx(-30 / 1.4)


def test_every_class_has_its_own_volume() -> None:
    liver, kidney = ConfusionCounts(tp=30, fn=10), ConfusionCounts(tp=50, fp=50)
    scores = [SliceScore(SCORES[0].slice, (liver, kidney))]
    volumes = measure_volumes(scores, ["liver", "kidney"], RECORDS)
    assert [each.class_name for each in volumes] == ["liver", "kidney"]
    assert [each.truth_ml for each in volumes] == pytest.approx([0.08, 0.1])
    assert [each.predicted_ml for each in volumes] == pytest.approx([0.06, 0.2])


def test_the_files(tmp_path: Path) -> None:
    dataset, out = LocalStorage(tmp_path / "dataset"), LocalStorage(tmp_path / "out")
    write_volumetry(SCORES, ["foreground"], dataset, out)
    assert out.list_objects() == []
    content: dict[str, Any] = {
        "schema_version": 1,
        "volumes": [each.model_dump(mode="json") for each in RECORDS.values()],
    }
    dataset.write("volumes.json", json.dumps(content).encode())
    write_volumetry(SCORES, ["foreground"], dataset, out)
    (row,) = csv.DictReader(io.StringIO(out.read("volumetry.csv").decode()))
    assert row == {
        "patient": "a",
        "class": "foreground",
        "truth_ml": "1.400",
        "predicted_ml": "1.100",
        "difference_ml": "-0.300",
        "difference_percent": "-21.43",
    }
    summary = json.loads(out.read("volumetry.json"))["foreground"]
    assert (summary["patients"], summary["pearson"], summary["limits_ml"]) == (1, None, None)
    dataset.write("volumes.json", b"{}")
    with pytest.raises(StorageError, match=r"volumes\.json is damaged"):
        write_volumetry(SCORES, ["foreground"], dataset, out)


def test_the_agreement_of_equal_volumes_is_perfect() -> None:
    volumes = [PatientVolume(str(ml), "foreground", ml, ml) for ml in (50.0, 80.0, 110.0)]
    agreement = summarize_agreement(volumes)
    assert agreement.pearson == pytest.approx(1.0)
    assert agreement.icc == pytest.approx(1.0)
    assert agreement.limits_ml == (0.0, 0.0)
    assert agreement.mean_absolute_difference_percent == 0.0


def test_icc_punishes_a_constant_difference_and_pearson_does_not() -> None:
    shifted = [value + 10.0 for value in FIRST]
    assert pearson(FIRST, shifted) == pytest.approx(1.0)
    icc = intraclass_correlation(FIRST, shifted)
    assert icc is not None
    # Without errors, ICC(2,1) is var / (var + d^2 / 2) with the variance of the patients.
    assert icc == pytest.approx(2.6667 / (2.6667 + 100.0 / 2), abs=1e-4)


def test_icc_by_its_variance_components() -> None:
    """The same as from the components of an analysis of variance, computed with NumPy."""
    table = np.array([FIRST, SECOND]).T
    n, k = table.shape
    residuals = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    errors = (residuals**2).sum() / ((n - 1) * (k - 1))
    patients = (k * table.mean(1).var(ddof=1) - errors) / k
    measurements = (n * table.mean(0).var(ddof=1) - errors) / n
    expected = patients / (patients + measurements + errors)
    assert intraclass_correlation(FIRST, SECOND) == pytest.approx(expected)


def test_undefined_values_are_none() -> None:
    assert pearson([1.0], [2.0]) is None
    assert pearson([1.0, 1.0], [2.0, 3.0]) is None
    assert intraclass_correlation([1.0], [1.0]) is None
    assert intraclass_correlation([1.0, 1.0], [1.0, 1.0]) is None
    assert PatientVolume("a", "foreground", 0.0, 3.0).difference_percent is None
    assert summarize_agreement([PatientVolume("a", "foreground", 0.0, 3.0)]).limits_ml is None
