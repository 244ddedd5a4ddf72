"""Patients of a pool: splits by foreground, written down, obeyed."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from contract.config import Data
from contract.errors import DataError
from contract.storage import Storage, open_storage
from trainer.data.splits import (
    SPLITS,
    draw_folds,
    find_patient,
    load_or_create_splits,
    stratified_split,
)

DATA = Data(source="folder", root="/nowhere", layout="unsplit")
POOL = {f"P{number:02d}": number / 100 for number in range(20)}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "prepared"))


def test_the_patient_is_what_the_pattern_finds() -> None:
    assert find_patient("PANCREAS_0002-cropped-0-1064", r"^PANCREAS_\d+") == "PANCREAS_0002"
    assert find_patient("ct_17_3", r"^ct_(\d+)_") == "17"
    assert find_patient("scan-3", Data().patient_id_regex) == "scan"
    # Every slice would be a patient of its own.
    assert find_patient("scan3", Data().patient_id_regex) is None
    assert find_patient("other", r"^PANCREAS_\d+") is None
    assert find_patient("-3", r"^([^-]*)") is None


def test_every_patient_is_assigned_once() -> None:
    splits = stratified_split(POOL, valid_fraction=0.15, test_fraction=0.25, seed=0)
    assert [len(splits[split]) for split in SPLITS] == [12, 3, 5]
    assert sorted(patient for split in SPLITS for patient in splits[split]) == sorted(POOL)


def test_the_deal_is_the_seeds() -> None:
    assert stratified_split(POOL, 0.2, 0.2, seed=1) == stratified_split(
        dict(reversed(POOL.items())), 0.2, 0.2, seed=1
    )
    assert any(
        stratified_split(POOL, 0.2, 0.2, seed=1) != stratified_split(POOL, 0.2, 0.2, seed=s)
        for s in range(2, 5)
    )


@pytest.mark.parametrize("seed", range(5))
def test_each_split_has_small_and_large_organs(seed: int) -> None:
    splits = stratified_split(POOL, 0.25, 0.25, seed)
    means = [np.mean([POOL[patient] for patient in splits[split]]) for split in SPLITS]
    assert max(means) - min(means) < 0.05
    for split in ("valid", "test"):
        assert min(POOL[patient] for patient in splits[split]) < 0.06
        assert max(POOL[patient] for patient in splits[split]) > 0.12


def test_three_patients_are_enough_and_two_are_not() -> None:
    splits = stratified_split({"a": 0.1, "b": 0.2, "c": 0.3}, 0.15, 0.15, seed=0)
    assert [len(splits[split]) for split in SPLITS] == [1, 1, 1]
    with pytest.raises(DataError, match=r"the dataset has 2 patients: .* none for training"):
        stratified_split({"a": 0.1, "b": 0.2}, 0.15, 0.15, seed=0)


def test_the_split_is_written_for_people_and_obeyed(storage: Storage) -> None:
    first = load_or_create_splits(POOL, DATA, 0, storage)
    text = storage.read("splits.json").decode()
    assert json.loads(text) == first
    assert len(text.splitlines()) > len(POOL)
    # Neither another seed nor other foreground deals again.
    assert load_or_create_splits(dict.fromkeys(POOL, 0.5), DATA, 9, storage) == first


def test_a_split_made_by_hand_is_obeyed(storage: Storage) -> None:
    mine = {"train": ["a"], "valid": ["c"], "test": ["b"]}
    storage.write("splits.json", json.dumps(mine).encode())
    assert load_or_create_splits({"a": 0.1, "b": 0.2, "c": 0.3}, DATA, 0, storage) == mine


def test_a_new_patient_is_an_error_with_the_way_out(storage: Storage) -> None:
    load_or_create_splits(POOL, DATA, 0, storage)
    with pytest.raises(DataError, match=r"patient NEW1 and 1 more .* delete that file"):
        load_or_create_splits({**POOL, "NEW1": 0.1, "NEW2": 0.1}, DATA, 0, storage)


def test_a_patient_that_left_is_a_warning(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    load_or_create_splits(POOL, DATA, 0, storage)
    with caplog.at_level(logging.WARNING):
        load_or_create_splits({name: POOL[name] for name in list(POOL)[1:]}, DATA, 0, storage)
    assert "P00" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", '{"train": "a"}', '{"training": []}'])
def test_a_damaged_split_is_named(text: str, storage: Storage) -> None:
    storage.write("splits.json", text.encode())
    with pytest.raises(DataError, match=r"splits\.json is damaged"):
        load_or_create_splits(POOL, DATA, 0, storage)


def test_a_patient_twice_in_the_split_is_named(storage: Storage) -> None:
    storage.write("splits.json", b'{"train": ["a"], "valid": ["a"], "test": ["b"]}')
    with pytest.raises(DataError, match="names patient a more than once"):
        load_or_create_splits({"a": 0.1, "b": 0.1}, DATA, 0, storage)


@pytest.mark.parametrize("seed", range(3))
def test_each_fold_has_small_and_large_organs(seed: int) -> None:
    folds = draw_folds(POOL, 4, seed)
    assert [len(fold) for fold in folds] == [5, 5, 5, 5]
    assert sorted(patient for fold in folds for patient in fold) == sorted(POOL)
    means = [np.mean([POOL[patient] for patient in fold]) for fold in folds]
    assert max(means) - min(means) < 0.03
    assert folds == draw_folds(dict(reversed(POOL.items())), 4, seed)


def test_folds_differ_in_size_by_at_most_one_patient() -> None:
    sizes = [len(fold) for fold in draw_folds(POOL, 6, 0)]
    assert sorted(sizes) == [3, 3, 3, 3, 4, 4]
    assert draw_folds(POOL, 4, 1) != draw_folds(POOL, 4, 2)
    with pytest.raises(DataError, match=r"20 patients together, too few for data\.folds = 21"):
        draw_folds(POOL, 21, 0)
