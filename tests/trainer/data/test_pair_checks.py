"""Every image and mask is decoded before training; those that cannot be used are named."""

import logging

import cv2
import numpy as np
import pytest

from contract.imaging.mask_encoding import MaskEncoding, threshold_encoding
from contract.imaging.segmentation_class import create_classes
from contract.storage import Storage
from tests.slice_folders import SIDE, data_error, image_of, mask_of, png, settings
from trainer.data.dataset_index import prepare_dataset
from trainer.data.pair_checks import class_fractions, digest_of, digest_pixels


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


@pytest.mark.parametrize(("threshold", "fraction"), [(0, 0.6), (1, 0.1), (127, 0.1), (255, 0.0)])
def test_the_foreground_is_above_the_threshold(threshold: int, fraction: float) -> None:
    values = {0: 40, 1: 50, 255: 10}
    assert class_fractions(values, threshold_encoding(threshold)) == (pytest.approx(fraction),)


def test_every_class_has_its_fraction() -> None:
    encoding = MaskEncoding(create_classes({"liver": 10, "kidney": 20, "spleen": 30}))
    assert class_fractions({0: 60, 1: 30, 3: 10}, encoding) == (0.3, 0.0, 0.1)


def test_a_digest_identifies_pixels_shape_and_type() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    digest = digest_pixels(pixels)
    assert len(digest) == 32
    # The layout in memory has no effect.
    assert digest_pixels(np.asfortranarray(pixels)) == digest
    others = [pixels + np.uint8(1), pixels.reshape(4, 3, 1), pixels.astype(np.int32)]
    assert digest not in {digest_pixels(other) for other in others}


def test_the_order_of_keys_does_not_change_a_digest() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1, "b": [1, 2]}) != digest_of({"a": 1, "b": [2, 1]})


def labels_of(*values: int) -> bytes:
    """A mask with a row of each value."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for row, value in enumerate(values):
        mask[row] = value
    return png(mask)


@pytest.fixture
def labelled(source: Storage) -> Storage:
    """The slices of `source`, whose masks have the values 1 and 2."""
    for info in source.list_objects():
        if "/masks/" in info.key:
            source.write(info.key, labels_of(1, 2))
    return source


def test_classes_are_counted_by_slice(labelled: Storage, home: Storage) -> None:
    dataset = prepare_dataset(settings(labelled, classes={"b": 2, "a": 1}), 0, home)
    assert dataset.slices[0].class_fractions == (1 / SIDE, 1 / SIDE)
    assert dataset.slices[0].foreground == pytest.approx(2 / SIDE)
    assert [each.name for each in dataset.masks.classes] == ["b", "a"]


def test_values_of_no_class_and_missing_classes_are_named(
    labelled: Storage, home: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    message = data_error(labelled, home, classes={"a": 1})
    assert f"{SIDE} pixels have a value of no class: 2" in message
    tolerant = settings(labelled, classes={"a": 1}, other_values_are_background=True)
    assert prepare_dataset(tolerant, 0, home).slices[0].foreground == 1 / SIDE
    message = data_error(labelled, home, classes={"a": 1, "b": 2, "c": 3})
    assert "no mask of the train split contains the class c: check data.classes.c" in message
    for info in labelled.list_objects("test/masks"):
        labelled.write(info.key, labels_of(1))
    prepare_dataset(settings(labelled, classes={"a": 1, "b": 2}), 0, home)
    assert "no mask of the test split contains b" in caplog.text
