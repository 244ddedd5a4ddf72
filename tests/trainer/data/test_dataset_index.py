"""Datasets are checked as a whole, named, indexed, and the same wherever they lie."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from contract.config import Config, Data
from contract.errors import DataError
from contract.storage import Storage, open_storage
from tests.slice_folders import PATTERN, SIDE, data_error, empty, mask_of, put, put_pool, settings
from trainer.data.dataset_index import (
    SPLITS,
    Dataset,
    check_neighbours,
    check_tile_sizes,
    dataset_id,
    prepare_dataset,
)


def spoil(file: Path) -> None:
    """Make a file unreadable without a listing showing it: same size, same time."""
    before = file.stat()
    file.write_bytes(bytes(before.st_size))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


# -- what a dataset is -------------------------------------------------------------------------


def test_cases_of_the_splits(source: Storage, home: Storage) -> None:
    output: list[tuple[int, int, str]] = []
    dataset = prepare_dataset(settings(source), 0, home, lambda *progress: output.append(progress))
    assert dataset.root == source.url
    assert [len(dataset.select(split)) for split in SPLITS] == [4, 4, 4]
    case = dataset.select("valid")[1]
    assert (case.name, case.patient, case.split) == ("P10-1", "P10", "valid")
    assert (case.image, case.mask) == ("valid/images/P10-1.png", "valid/masks/P10-1.png")
    assert (case.height, case.width, case.foreground) == (SIDE, SIDE, 4 / SIDE)
    assert output == [(done, 12, "checked") for done in range(1, 13)]


def test_the_threshold_decides_the_foreground(source: Storage, home: Storage) -> None:
    source.write("train/masks/P00-0.png", mask_of(12, value=100))
    assert prepare_dataset(settings(source), 0, home).slices[0].foreground == 0.0
    assert prepare_dataset(settings(source, mask_threshold=50), 0, home).slices[0].foreground == 0.5


def test_the_fingerprint_names_the_content(
    source: Storage, home: Storage, tmp_path: Path, s3: str
) -> None:
    first = prepare_dataset(settings(source), 0, home)
    for copy in (open_storage(str(tmp_path / "copy")), open_storage(f"{s3}/slices")):
        copy.upload_folder(Path(source.url))
        there = prepare_dataset(settings(copy), 5, home)
        assert there.fingerprint == first.fingerprint
        assert (there.root, there.slices) == (copy.url, first.slices)
    put(source, "train/", "P00-0", rows=9)
    assert prepare_dataset(settings(source), 0, home).fingerprint != first.fingerprint


def test_everything_may_lie_in_s3(s3: str) -> None:
    slices, home = open_storage(f"{s3}/pool"), open_storage(f"{s3}/home")
    put_pool(slices, patients=4)
    data = settings(slices, layout="unsplit")
    dataset = prepare_dataset(data, 0, home)
    assert dataset == prepare_dataset(data, 0, home)
    assert dataset.root == f"{s3}/pool"
    assert home.exists(f"datasets/{dataset_id(data, 0)}/splits.json")


# -- the index ---------------------------------------------------------------------------------


def test_an_unchanged_dataset_is_not_read_again(source: Storage, home: Storage) -> None:
    first = prepare_dataset(settings(source), 0, home)
    spoil(Path(source.url) / "train/images/P00-0.png")
    assert prepare_dataset(settings(source), 0, home) == first
    assert "P00-0.png cannot be decoded" in data_error(source, home, mask_threshold=1)


@pytest.mark.parametrize("layout", ["presplit", "unsplit"])
def test_a_changed_file_is_read_again(
    layout: str, source: Storage, pool: Storage, home: Storage
) -> None:
    slices, folder = (source, "train/") if layout == "presplit" else (pool, "")
    data = settings(slices, layout=layout)
    first = prepare_dataset(data, 0, home)
    slices.write(f"{folder}masks/P00-0.png", mask_of(11))
    second = prepare_dataset(data, 0, home)
    assert second.fingerprint != first.fingerprint
    assert next(case for case in second.slices if case.name == "P00-0").foreground == 11 / SIDE


def test_a_damaged_index_is_made_again(source: Storage, home: Storage) -> None:
    data = settings(source)
    first = prepare_dataset(data, 0, home)
    home.write(f"datasets/{dataset_id(data, 0)}/index.json", b'{"stamp": ')
    assert prepare_dataset(data, 0, home) == first


def test_the_index_is_readable(source: Storage, home: Storage) -> None:
    data = settings(source)
    prepare_dataset(data, 0, home)
    index = json.loads(home.read(f"datasets/{dataset_id(data, 0)}/index.json"))
    assert index["dataset"]["slices"][0]["patient"] == "P00"


def test_the_name_reports_the_source_and_its_settings(source: Storage) -> None:
    data = settings(source)
    assert dataset_id(data, 0).startswith("slices-")
    assert dataset_id(data, 0) == dataset_id(data, 1)
    others = [
        settings(source, mask_threshold=1),
        settings(source, patient_id_regex="^P"),
        settings(source, layout="unsplit"),
    ]
    assert len({dataset_id(each, 0) for each in [data, *others]}) == 4
    assert dataset_id(others[2], 0) != dataset_id(others[2], 1)
    assert dataset_id(Data(), 0) != dataset_id(Data(), 1)
    assert dataset_id(settings(open_storage("s3://b/a b")), 0).startswith("a-b-")


# -- a pool ------------------------------------------------------------------------------------


def test_a_pool_is_split_by_patient(pool: Storage, home: Storage) -> None:
    data = settings(pool, layout="unsplit", valid_fraction=0.2, test_fraction=0.3)
    dataset = prepare_dataset(data, 0, home)
    homes = {split: {case.patient for case in dataset.select(split)} for split in SPLITS}
    assert [len(homes[split]) for split in SPLITS] == [5, 2, 3]
    assert len(set.union(*homes.values())) == 10
    written = json.loads(home.read(f"datasets/{dataset_id(data, 0)}/splits.json"))
    assert {split: set(patients) for split, patients in written.items()} == homes


def test_the_seed_of_the_data_keeps_the_splits_of_another_run(pool: Storage, home: Storage) -> None:
    unsplit = settings(pool, layout="unsplit", valid_fraction=0.2, test_fraction=0.3)
    for data in (unsplit, unsplit.model_copy(update={"folds": 2}), PHANTOM):
        fixed = data.model_copy(update={"seed": 0})
        first = prepare_dataset(data, 0, home)
        assert prepare_dataset(fixed, 1, home) == first
        assert prepare_dataset(data, 1, home).fingerprint != first.fingerprint


def test_a_pools_split_stays_when_slices_are_added(pool: Storage, home: Storage) -> None:
    data = settings(pool, layout="unsplit")
    first = {case.name: case.split for case in prepare_dataset(data, 0, home).slices}
    put(pool, "", "P03-9", rows=20)
    second = {case.name: case.split for case in prepare_dataset(data, 0, home).slices}
    assert second.pop("P03-9") == first["P03-0"]
    assert second == first


def test_a_pools_new_patient_is_rejected(pool: Storage, home: Storage) -> None:
    prepare_dataset(settings(pool, layout="unsplit"), 0, home)
    put(pool, "", "P77-0")
    message = data_error(pool, home, layout="unsplit")
    assert "patient P77 was added to the dataset after it was split" in message
    assert "splits.json" in message


def test_a_split_edited_by_hand_is_obeyed(pool: Storage, home: Storage) -> None:
    data = settings(pool, layout="unsplit")
    prepare_dataset(data, 0, home)
    key = f"datasets/{dataset_id(data, 0)}/splits.json"
    splits = json.loads(home.read(key))
    moved = splits["train"].pop()
    splits["test"].append(moved)
    home.write(key, json.dumps(splits).encode())
    dataset = prepare_dataset(data, 0, home)
    assert {case.split for case in dataset.slices if case.patient == moved} == {"test"}


# -- what is rejected ---------------------------------------------------------------------------


def test_tiles_reject_slices_that_training_would_shrink(source: Storage, home: Storage) -> None:
    dataset = prepare_dataset(settings(source), 0, home)
    config = Config().with_values({"network.image_size": 16, "predict.sliding_window": True})
    with pytest.raises(DataError, match=r"train/images/P00-0\.png is 24 x 24 .*must have 16 x 16"):
        check_tile_sizes(dataset, config.network, config.predict)
    resized = config.with_values({"predict.sliding_window": False})
    check_tile_sizes(dataset, resized.network, resized.predict)
    fitting = config.with_values({"network.num_layers": 4, "network.image_size": SIDE})
    check_tile_sizes(dataset, fitting.network, fitting.predict)
    windows = config.with_values({"predict.window_size": SIDE})
    check_tile_sizes(dataset, windows.network, windows.predict)
    larger = config.with_values({"predict.window_size": 2 * SIDE})
    with pytest.raises(DataError, match=r"must have 48 x 48 \(predict\.window_size\)"):
        check_tile_sizes(dataset, larger.network, larger.predict)


def test_neighbours_require_slices_with_neighbours(source: Storage, home: Storage) -> None:
    dataset = prepare_dataset(settings(source), 0, home)
    check_neighbours(dataset, 1)
    records = [replace(record, name=record.name[:3]) for record in dataset.slices]
    unnumbered = replace(dataset, slices=tuple(records))
    check_neighbours(unnumbered, 0)
    with pytest.raises(DataError, match=r"data\.neighbours = 1, but no training slice of .*slices"):
        check_neighbours(unnumbered, 1)


def test_neighbours_have_the_size_of_their_slice(source: Storage, home: Storage) -> None:
    dataset = prepare_dataset(settings(source), 0, home)
    high, *others = dataset.slices
    changed = replace(dataset, slices=(replace(high, height=48), *others))
    check_neighbours(changed, 0)
    with pytest.raises(DataError, match=r"P00-1\.png is 24 x 24 pixels, but .*P00-0\.png 24 x 48"):
        check_neighbours(changed, 2)


def test_a_patient_in_two_splits_is_rejected_unless_allowed(
    source: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    put(source, "test/", "P00-7")
    for _ in range(2):
        message = data_error(source, home)
        assert "patient P00 is in the splits train and test" in message
        assert "data.allow_patient_overlap" in message
    with caplog.at_level(logging.WARNING):
        dataset = prepare_dataset(settings(source, allow_patient_overlap=True), 0, home)
    assert len(dataset.select("test")) == 5
    assert "patient P00 is in the splits train and test" in caplog.text
    data_error(source, home)


def test_the_foreground_of_masks_of_0_and_1_is_decided_and_logged(
    source: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    for info in source.list_objects():
        if "/masks/" in info.key:
            source.write(info.key, mask_of(6, value=1))
    with caplog.at_level(logging.INFO):
        dataset = prepare_dataset(settings(source), 0, home)
    assert dataset.masks.threshold == 0
    assert {record.foreground for record in dataset.slices} == {6 / SIDE}
    assert "values 0 and 1: foreground is above 0 (data.mask_threshold)" in caplog.text
    source.write("train/masks/P00-0.png", mask_of(6, value=2))
    message = data_error(source, home)
    assert "values 0, 1, 2 (train/masks/P00-0.png contains 2)" in message
    assert "set data.mask_threshold" in message


def test_masks_that_may_be_inverted_are_reported(
    source: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    for info in source.list_objects():
        if "/masks/" in info.key:
            source.write(info.key, mask_of(20))
    with caplog.at_level(logging.WARNING):
        prepare_dataset(settings(source), 0, home)
    assert "in 12 of 12 masks" in caplog.text
    assert "may be inverted" in caplog.text


def test_a_dataset_without_a_test_split_can_be_trained_on(
    source: Storage, pool: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    empty(source, "test")
    with caplog.at_level(logging.INFO):
        dataset = prepare_dataset(settings(source), 0, home)
    assert dataset.select("test") == ()
    assert "has no test split: the trained network cannot be tested" in caplog.text
    unsplit = prepare_dataset(settings(pool, layout="unsplit", test_fraction=0.0), 0, home)
    assert [len(unsplit.patients(split)) for split in SPLITS] == [8, 2, 0]


def test_a_rejected_dataset_leaves_no_index(source: Storage, home: Storage) -> None:
    source.delete("valid/masks/P10-1.png")
    data_error(source, home)
    assert home.list_objects() == []


# -- the phantom -------------------------------------------------------------------------------

PHANTOM = Data.model_validate(
    {
        # The phantom's names are its own business.
        "patient_id_regex": PATTERN,
        "phantom": {
            "train_patients": 2,
            "valid_patients": 1,
            "test_patients": 1,
            "slices": 2,
            "size": 64,
        },
    }
)


def test_the_phantom_is_drawn_once(home: Storage) -> None:
    output: list[tuple[int, int, str]] = []
    dataset = prepare_dataset(PHANTOM, 0, home, lambda *progress: output.append(progress))
    assert [len(dataset.select(split)) for split in SPLITS] == [4, 2, 2]
    assert dataset.root == home.child(f"datasets/{dataset_id(PHANTOM, 0)}").url
    assert dataset.select("test")[0].patient == "PHANTOM_2001"
    assert output == [(done, 8, what) for what in ("drawn", "checked") for done in range(1, 9)]
    spoil(Path(dataset.root) / dataset.slices[0].image)
    assert prepare_dataset(PHANTOM, 0, home) == dataset


def prepare_counted(data: Data, home: Storage) -> tuple[Dataset, int]:
    """A dataset, and how many of its slices were decoded for it."""
    progress: list[tuple[int, int | None, str]] = []
    dataset = prepare_dataset(data, 0, home, lambda *each: progress.append(each))
    return dataset, len(progress)


def test_each_patient_of_train_and_valid_is_validated_in_one_fold(
    source: Storage, pool: Storage, home: Storage
) -> None:
    unsplit = settings(pool, layout="unsplit", valid_fraction=0.2, test_fraction=0.3)
    for data in (settings(source), unsplit, PHANTOM):
        base = prepare_dataset(data, 0, home)
        changes = [{"folds": 2, "fold": number} for number in (1, 2)]
        prepared = [prepare_counted(data.model_copy(update=each), home) for each in changes]
        # The slices are decoded once for all folds.
        assert [count for _, count in prepared] == [len(base.slices), 0]
        folds = [dataset for dataset, _ in prepared]
        first, second = folds
        assert set(first.patients("valid")) == set(second.patients("train"))
        assert set(second.patients("valid")) == set(first.patients("train"))
        own = {*base.patients("train"), *base.patients("valid")}
        assert {*first.patients("train"), *first.patients("valid")} == own
        assert abs(len(first.patients("valid")) - len(second.patients("valid"))) <= 1
        assert first.select("test") == second.select("test") == base.select("test")
        assert first.fingerprint != second.fingerprint
        # The intensities are those of the training slices of the fold alone.
        counts = [sum(count for _, count in each.foreground_intensities) for each in folds]
        pixels = [
            sum(round(each.foreground * each.height * each.width) for each in fold.select("train"))
            for fold in folds
        ]
        assert counts == pixels
        # Neither fold nor splits are made again.
        assert prepare_dataset(data.model_copy(update=changes[0]), 0, home) == first
        assert prepare_dataset(data, 0, home) == base


def test_a_damaged_phantom_is_drawn_again(home: Storage) -> None:
    first = prepare_dataset(PHANTOM, 0, home)
    files = open_storage(first.root)
    files.delete(first.slices[0].mask)
    files.write(first.slices[1].image, b"broken")
    assert prepare_dataset(PHANTOM, 0, home) == first


def test_the_phantom_is_the_same_in_s3(home: Storage, s3: str) -> None:
    here, there = (
        prepare_dataset(PHANTOM, 0, home),
        prepare_dataset(PHANTOM, 0, open_storage(f"{s3}/store")),
    )
    assert there.fingerprint == here.fingerprint
    assert there.slices == here.slices
    assert there.root.startswith(f"{s3}/store/datasets/phantom-")


# -- real slices -------------------------------------------------------------------------------

PANCREAS = Path(__file__).parents[3] / "../shared/data/Cropped-Pancreas"


@pytest.mark.skipif(not PANCREAS.is_dir(), reason="the Cropped-Pancreas slices are not here")
def test_the_pancreas_slices(home: Storage) -> None:
    source = open_storage(str(PANCREAS))
    dataset: Dataset = prepare_dataset(settings(source, patient_id_regex=r"^PANCREAS_\d+"), 0, home)
    assert [len(dataset.select(split)) for split in SPLITS] == [480, 85, 102]
    patients = [len({case.patient for case in dataset.select(split)}) for split in SPLITS]
    assert patients == [37, 7, 7]
    assert {(case.height, case.width) for case in dataset.slices} == {(512, 512)}
    assert all(0.0 < case.foreground < 0.1 for case in dataset.slices)
