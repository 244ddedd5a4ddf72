"""Images and masks are paired by name; files that cannot be paired are named with a remedy."""

import io
import logging
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from contract.errors import DataError
from contract.imaging.file_names import IMAGE_SUFFIXES
from contract.storage import ObjectInfo, Storage, open_storage
from tests.slice_folders import data_error, empty, image_of, mask_of, put, settings
from trainer.data.dataset_index import SPLITS, prepare_dataset
from trainer.data.pairing import Pair, list_files, pair_files, raise_data_errors


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
    assert "matches the complete name of every file, such as P00-0: change it" in message
    assert 'split them yourself with data.layout = "presplit"' in message
    assert home.list_objects() == []


def test_an_empty_split_is_named(source: Storage, home: Storage) -> None:
    empty(source, "valid")
    message = data_error(source, home)
    assert f"there are no images ({', '.join(IMAGE_SUFFIXES)}) in {source.url}/valid" in message


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
    assert message.startswith(f"there is no folder {tmp_path / 'nowhere'}: set data.root to ")
    (tmp_path / "nowhere").mkdir()
    assert "data.root must contain train, valid and test, each with images and masks" in data_error(
        nowhere, home
    )


def test_only_files_of_the_layout_are_listed(source: Storage, pool: Storage) -> None:
    source.write("elsewhere/P99-0.png", b"x")
    presplit, unsplit = settings(source), settings(pool, layout="unsplit")
    assert [info.key for info in list_files(presplit, source)] == [
        f"{split}/{kind}/P{first + patient:02d}-{index}.png"
        for split, first in zip(SPLITS, (0, 10, 20), strict=True)
        for kind in ("images", "masks")
        for patient in (0, 1)
        for index in (0, 1)
    ]
    assert len(list_files(unsplit, pool)) == 40
    assert list_files(unsplit, source) == []


def test_a_pair_of_an_unsplit_dataset_has_no_split_yet(pool: Storage) -> None:
    data = settings(pool, layout="unsplit")
    first, *others = pair_files(list_files(data, pool), data, pool)
    assert first == Pair("P00-0", "P00", None, "images/P00-0.png", "masks/P00-0.png")
    assert len(others) == 19


def test_the_name_of_a_mask_contains_more_than_the_pattern(pool: Storage) -> None:
    """A mask named only by the pattern has no image."""
    data = settings(pool, layout="unsplit", mask_pattern="{name}_seg")
    keys = ("images/P00-0.png", "masks/P00-0_seg.png", "masks/_seg.png")
    files = [ObjectInfo(key, 1, "") for key in keys]
    with pytest.raises(DataError, match=r"masks/_seg\.png has no image: a mask is named"):
        pair_files(files, data, pool)


def test_no_error_is_raised_without_errors(pool: Storage) -> None:
    raise_data_errors([], pool, "a remedy")
    with pytest.raises(DataError) as caught:
        raise_data_errors(["b.png is empty", "a.png is empty"], pool)
    assert str(caught.value) == (
        f"{pool.url}: 2 files are invalid: a.png is empty; b.png is empty."
    )
