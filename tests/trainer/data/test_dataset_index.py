"""Datasets are checked as a whole, named, indexed, and the same wherever they lie."""

import io
import json
import logging
import os
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from contract.config import Config, Data
from contract.errors import DataError
from contract.imaging.file_names import IMAGE_SUFFIXES
from contract.storage import Storage, open_storage
from trainer.data.dataset_index import (
    SPLITS,
    Dataset,
    check_tile_sizes,
    dataset_id,
    prepare_dataset,
)

PATTERN = r"^P\d+"
SIDE = 24


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def image_of(name: str, suffix: str = ".png", side: int = SIDE) -> bytes:
    """A picture that no other name has."""
    draw = np.random.default_rng(list(name.encode()))
    pixels = cv2.GaussianBlur(draw.integers(0, 256, (side, side), np.uint8), (0, 0), 2)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def mask_of(rows: int, value: int = 255) -> bytes:
    """A mask whose first rows are foreground."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:rows] = value
    return png(mask)


def put(storage: Storage, folder: str, name: str, rows: int = 6) -> None:
    storage.write(f"{folder}images/{name}.png", image_of(name))
    storage.write(f"{folder}masks/{name}.png", mask_of(rows))


def put_splits(storage: Storage) -> None:
    """Two patients of two slices in each split."""
    for split, first in zip(SPLITS, (0, 10, 20), strict=True):
        for patient in (first, first + 1):
            for index in range(2):
                put(storage, f"{split}/", f"P{patient:02d}-{index}", rows=3 + index)


def put_pool(storage: Storage, patients: int = 10) -> None:
    for patient in range(patients):
        for index in range(2):
            put(storage, "", f"P{patient:02d}-{index}", rows=1 + patient)


def empty(storage: Storage, folder: str) -> None:
    for entry in storage.list_objects(folder):
        storage.delete(entry.key)


def settings(source: Storage, **changes: object) -> Data:
    return Data.model_validate(
        {"source": "folder", "root": source.url, "patient_id_regex": PATTERN, **changes}
    )


def data_error(source: Storage, home: Storage, **changes: object) -> str:
    """The message with which a dataset is rejected."""
    with pytest.raises(DataError) as error:
        prepare_dataset(settings(source, **changes), 0, home)
    return str(error.value)


@pytest.fixture
def home(tmp_path: Path) -> Storage:
    """The storage root."""
    return open_storage(str(tmp_path / "home"))


@pytest.fixture
def source(tmp_path: Path) -> Storage:
    """A dataset in splits."""
    storage = open_storage(str(tmp_path / "slices"))
    put_splits(storage)
    return storage


@pytest.fixture
def pool(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path / "pool"))
    put_pool(storage)
    return storage


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


def test_images_and_masks_pair_by_stem(source: Storage, home: Storage) -> None:
    source.delete("train/images/P00-0.png")
    source.write("train/images/P00-0.jpg", image_of("P00-0", ".jpg"))
    case = prepare_dataset(settings(source), 0, home).select("train")[0]
    assert (case.image, case.mask) == ("train/images/P00-0.jpg", "train/masks/P00-0.png")


def test_other_files_are_skipped(
    source: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    plain = prepare_dataset(settings(source), 0, home)
    source.write("train/images/.DS_Store", b"x")
    source.write("train/images/notes.txt", b"x")
    source.write("elsewhere/P99-0.png", b"x")
    with caplog.at_level(logging.WARNING):
        assert prepare_dataset(settings(source), 0, home) == plain
    assert "1 files" in caplog.text
    assert "train/images/notes.txt" in caplog.text


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


def test_a_missing_partner_is_named(source: Storage, home: Storage) -> None:
    source.delete("valid/masks/P10-1.png")
    remedy = (
        "an image and its mask have the same stem; add the missing files, remove the others, or "
        "set data.mask_pattern."
    )
    assert data_error(source, home) == f"{source.url}: valid/images/P10-1.png has no mask: {remedy}"
    source.delete("valid/images/P10-1.png")
    source.delete("test/images/P20-0.png")
    assert data_error(source, home) == f"{source.url}: test/masks/P20-0.png has no image: {remedy}"


def test_of_many_faults_the_first_are_named(source: Storage, home: Storage) -> None:
    for split, first in zip(SPLITS, (0, 10, 20), strict=True):
        for name in (f"P{first:02d}-0", f"P{first:02d}-1", f"P{first + 1:02d}-0"):
            source.delete(f"{split}/masks/{name}.png")
    message = data_error(source, home)
    assert "9 files are invalid: test/images/P20-0.png has no mask; " in message
    assert "; and 4 more: an image and its mask have the same stem; " in message


def test_two_files_of_one_stem_are_named(source: Storage, home: Storage) -> None:
    source.write("train/images/P00-0.jpg", image_of("P00-0", ".jpg"))
    message = data_error(source, home)
    assert "train/images/P00-0.jpg and train/images/P00-0.png have the same stem" in message


def test_an_unreadable_file_is_named(source: Storage, home: Storage) -> None:
    source.write("train/masks/P01-0.png", mask_of(4)[:-20])
    source.write("test/images/P20-0.png", b"no picture")
    message = data_error(source, home)
    assert "2 files are invalid" in message
    assert "train/masks/P01-0.png cannot be decoded" in message
    assert "test/images/P20-0.png cannot be decoded" in message


def test_sizes_that_differ_are_named(source: Storage, home: Storage) -> None:
    source.write("train/images/P01-0.png", image_of("x", side=32))
    message = data_error(source, home)
    assert "train/images/P01-0.png is 32 x 32 pixels, but train/masks/P01-0.png is 24 x 24" in (
        message
    )


def test_a_name_without_patient_is_named(source: Storage, home: Storage) -> None:
    put(source, "train/", "odd-1")
    message = data_error(source, home)
    assert (
        r"data.patient_id_regex = '^P\d+' finds no patient in the name of train/images/odd-1.png"
    ) in message
    assert "or rename the files" in message


def test_names_without_patient_are_reported_once(source: Storage, home: Storage) -> None:
    message = data_error(source, home, patient_id_regex="^it's_(.)")
    assert message.count("data.patient_id_regex") == 1
    assert '"^it\'s_(.)" finds no patient in the names of 12 files, such as ' in message
    assert "train/images/P00-0.png: change it" in message


def test_a_pool_whose_every_slice_were_a_patient_is_rejected(pool: Storage, home: Storage) -> None:
    message = data_error(pool, home, layout="unsplit", patient_id_regex="^.+")
    assert "takes the complete name of every file, such as P00-0, for its patient" in message
    assert 'split them yourself with data.layout = "presplit"' in message
    assert home.list_objects() == []


def test_tiles_reject_slices_that_training_would_shrink(source: Storage, home: Storage) -> None:
    dataset = prepare_dataset(settings(source), 0, home)
    config = Config().with_values({"network.image_size": 16, "predict.sliding_window": True})
    with pytest.raises(DataError, match=r"train/images/P00-0\.png is 24 x 24 .*image_size = 16"):
        check_tile_sizes(dataset, config.network, config.predict)
    resized = config.with_values({"predict.sliding_window": False})
    check_tile_sizes(dataset, resized.network, resized.predict)
    fitting = config.with_values({"network.num_layers": 4, "network.image_size": SIDE})
    check_tile_sizes(dataset, fitting.network, fitting.predict)


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


def test_a_split_without_foreground_is_rejected(source: Storage, home: Storage) -> None:
    for name in ("P10-0", "P10-1", "P11-0", "P11-1"):
        source.write(f"valid/masks/{name}.png", mask_of(5, value=1))
    message = data_error(source, home, mask_threshold=127)
    assert "none of the 4 masks of the valid split (valid/masks/P10-0.png, …)" in message
    assert "their maximum value is 1, and foreground is above data.mask_threshold = 127: " in (
        message
    )
    assert "set data.mask_threshold below that maximum" in message
    source.write("valid/masks/P11-1.png", mask_of(5))
    dataset = prepare_dataset(settings(source, mask_threshold=127), 0, home)
    assert dataset.select("valid")[0].foreground == 0.0


def test_the_foreground_of_masks_of_0_and_1_is_decided_and_logged(
    source: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    for info in source.list_objects():
        if "/masks/" in info.key:
            source.write(info.key, mask_of(6, value=1))
    with caplog.at_level(logging.INFO):
        dataset = prepare_dataset(settings(source), 0, home)
    assert dataset.mask_threshold == 0
    assert {record.foreground for record in dataset.slices} == {6 / SIDE}
    assert "values 0 and 1: foreground is above 0 (data.mask_threshold)" in caplog.text
    source.write("train/masks/P00-0.png", mask_of(6, value=2))
    message = data_error(source, home)
    assert "values 0, 1, 2 (train/masks/P00-0.png contains 2)" in message
    assert "set data.mask_threshold" in message


def test_one_image_in_two_splits_is_rejected_unless_allowed(
    source: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    # The same pixels in another file format, below the name of another patient.
    pixels = cv2.imdecode(
        np.frombuffer(source.read("train/images/P00-0.png"), np.uint8), cv2.IMREAD_GRAYSCALE
    )
    assert pixels is not None
    source.write("test/images/P20-0.bmp", cv2.imencode(".bmp", pixels)[1].tobytes())
    source.delete("test/images/P20-0.png")
    for _ in range(2):
        message = data_error(source, home)
        assert "train/images/P00-0.png and test/images/P20-0.bmp have the same pixels" in message
        assert "data.allow_patient_overlap" in message
        with caplog.at_level(logging.WARNING):
            prepare_dataset(settings(source, allow_patient_overlap=True), 0, home)
        assert "have the same pixels" in caplog.text


def test_blank_images_in_two_splits_are_no_duplicates(source: Storage, home: Storage) -> None:
    for key in ("train/images/P00-0.png", "test/images/P20-0.png"):
        source.write(key, png(np.zeros((SIDE, SIDE), np.uint8)))
    assert prepare_dataset(settings(source), 0, home).duplicates == ()


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


def test_an_empty_split_is_named(source: Storage, home: Storage) -> None:
    empty(source, "valid")
    message = data_error(source, home)
    assert f"there are no images ({', '.join(IMAGE_SUFFIXES)}) in {source.url}/valid" in message


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


def test_folders_of_other_names_are_listed_and_can_be_set(
    tmp_path: Path, source: Storage, home: Storage
) -> None:
    renamed = tmp_path / "renamed"
    Path(source.url).rename(renamed)
    (renamed / "valid").rename(renamed / "val")
    for split in ("train", "val", "test"):
        (renamed / split / "images").rename(renamed / split / "img")
        (renamed / split / "masks").rename(renamed / split / "labels")
    storage = open_storage(str(renamed))
    message = data_error(storage, home)
    assert "in test/img, test/labels, train/img, train/labels, val/img, val/labels: " in message
    assert "data.valid_dir, data.test_dir, data.images_dir and data.masks_dir" in message
    names = {"valid_dir": "val", "images_dir": "img", "masks_dir": "labels"}
    dataset = prepare_dataset(settings(storage, **names), 0, home)
    assert [len(dataset.select(split)) for split in SPLITS] == [4, 4, 4]


def test_masks_are_paired_by_the_pattern_of_their_names(source: Storage, home: Storage) -> None:
    for info in source.list_objects():
        if "/masks/" in info.key:
            pixels = cv2.imdecode(np.frombuffer(source.read(info.key), np.uint8), 0)
            assert pixels is not None
            gif = io.BytesIO()
            Image.fromarray(pixels).save(gif, "gif")
            source.write(info.key.replace(".png", "_seg.gif"), gif.getvalue())
            source.delete(info.key)
    dataset = prepare_dataset(settings(source, mask_pattern="{name}_seg"), 0, home)
    assert dataset.slices[0].mask == "train/masks/P00-0_seg.gif"
    assert dataset.slices[0].name == "P00-0"
    message = data_error(source, home)
    assert "test/images/P20-0.png has no mask" in message
    assert "or set data.mask_pattern" in message


def test_hidden_files_of_macos_are_ignored(
    source: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    source.write("train/images/._P00-0.png", b"Mac OS X")
    source.write("train/masks/._P00-0.png", b"Mac OS X")
    source.write("train/images/__MACOSX/P00-0.png", b"Mac OS X")
    source.write("train/images/.DS_Store", b"Mac OS X")
    with caplog.at_level(logging.INFO):
        assert len(prepare_dataset(settings(source), 0, home).slices) == 12
    assert "3 hidden files in" in caplog.text


def test_names_are_paired_in_composed_form(source: Storage, home: Storage) -> None:
    composed, decomposed = (unicodedata.normalize(form, "P05-é") for form in ("NFC", "NFD"))
    source.write(f"train/images/{composed}.png", image_of("P05"))
    source.write(f"train/masks/{decomposed}.png", mask_of(4))
    dataset = prepare_dataset(settings(source), 0, home)
    assert composed in [record.name for record in dataset.slices]
    source.write(f"train/images/{decomposed}.png", image_of("P06"))
    assert "have the same stem" in data_error(source, home)


def test_pictures_of_another_kind_are_named(source: Storage, home: Storage) -> None:
    empty(source, "test/images")
    source.write("test/images/P20-0.dcm", b"x")
    assert "1 other files such as test/images/P20-0.dcm: convert them" in data_error(source, home)


def test_pictures_in_subfolders_are_named(source: Storage, home: Storage) -> None:
    source.write("train/masks/P00/P00-0.png", mask_of(4))
    source.write("train/masks/.thumbnails/P00-0.png", mask_of(4))
    assert data_error(source, home) == (
        f"{source.url}: train/masks/P00/P00-0.png is in a subfolder: "
        "move it directly into train/masks."
    )


def test_the_other_layout_is_recognised(source: Storage, pool: Storage, home: Storage) -> None:
    assert 'are those of data.layout = "unsplit"' in data_error(pool, home)
    assert 'are those of data.layout = "presplit"' in data_error(source, home, layout="unsplit")


def test_a_wrong_root_is_named(tmp_path: Path, home: Storage) -> None:
    nowhere = open_storage(str(tmp_path / "nowhere"))
    message = data_error(nowhere, home)
    assert message.startswith(f"there is no folder {tmp_path / 'nowhere'}: data.root must contain")
    (tmp_path / "nowhere").mkdir()
    assert "data.root must contain train|valid|test" in data_error(nowhere, home)


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


def test_a_damaged_phantom_is_drawn_again(home: Storage) -> None:
    first = prepare_dataset(PHANTOM, 0, home)
    files = open_storage(first.root)
    files.delete(first.slices[0].mask)
    files.write(first.slices[1].image, b"broken")
    assert prepare_dataset(PHANTOM, 0, home) == first


def test_the_phantom_is_the_same_in_s3(home: Storage, s3: str) -> None:
    here, there = (
        prepare_dataset(PHANTOM, 0, home),
        prepare_dataset(PHANTOM, 0, open_storage(f"{s3}/root")),
    )
    assert there.fingerprint == here.fingerprint
    assert there.slices == here.slices
    assert there.root.startswith(f"{s3}/root/datasets/phantom-")


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
