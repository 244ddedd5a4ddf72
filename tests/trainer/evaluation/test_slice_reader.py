"""Slices are read ahead in order, and batched by their shape."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from contract.errors import StorageError
from contract.storage import open_storage
from tests.scores import case
from tests.trainer.conftest import HEIGHT, ORGAN, WIDTH, Prepared
from trainer.evaluation.slice_reader import (
    SliceReader,
    batch_by_shape,
    find_stacks,
    load_saved_model,
    read_ahead,
)


def test_batches_hold_slices_of_one_shape_and_type() -> None:
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


@pytest.fixture
def reader(prepared: Prepared) -> SliceReader:
    """Reads the slices of the dataset."""
    dataset = prepared.dataset
    return SliceReader(open_storage(dataset.root), dataset.masks, (0.0, 255.0))


def test_slices_are_read_in_their_order(prepared: Prepared, reader: SliceReader) -> None:
    # More than are decoded ahead.
    records = [*prepared.dataset.slices, *reversed(prepared.dataset.slices)]
    loaded = list(read_ahead(records, reader))
    assert [record for record, _, _ in loaded] == records
    for record, image, mask in loaded:
        assert image.shape[:2] == mask.shape == (record.height, record.width)
        assert mask.mean() == pytest.approx(record.foreground)


def test_a_slice_that_cannot_be_read_is_named(prepared: Prepared, reader: SliceReader) -> None:
    records = [*prepared.dataset.slices, case("gone")]
    with pytest.raises(StorageError, match=r"gone\.png"):
        list(read_ahead(records, reader))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_saved_model_predicts_slices_of_both_types(
    thresholding: Path, dtype: type[np.uint8 | np.int32]
) -> None:
    slices = np.where(ORGAN, 200, 40).astype(dtype)[None, ..., None]
    masks, probability = load_saved_model(thresholding)(slices)
    assert (probability.shape, probability.dtype) == ((1, HEIGHT, WIDTH, 1), np.float32)
    assert (masks.shape, masks.dtype) == ((1, HEIGHT, WIDTH), np.uint8)
    assert np.array_equal(masks[0] == 1, ORGAN)


def test_stacks_are_read_in_grey_and_shown_by_their_center(
    prepared: Prepared, reader: SliceReader
) -> None:
    records = prepared.dataset.select("train")
    stacked = dataclasses.replace(reader, stacks=find_stacks(records, 1))
    slices = {record.name: reader.read(record)[1] for record in records}
    for name, stack in (
        ("a-1", ("a-1", "a-1", "a-2")),
        ("a-2", ("a-1", "a-2", "a-2")),
        ("b-1", ("b-1",) * 3),
    ):
        (record,) = (each for each in records if each.name == name)
        same, image, _ = stacked.read(record)
        assert same == record
        assert np.array_equal(image, np.concatenate([slices[each] for each in stack], axis=-1))
        assert np.array_equal(stacked.shown_slice(image), slices[name])
    assert find_stacks(records, 0) == {}
    (rgb,) = prepared.dataset.select("valid")
    color = reader.read(rgb)[1]
    assert reader.shown_slice(color) is color
    grey = dataclasses.replace(reader, stacks=find_stacks([rgb], 1)).read(rgb)[1]
    # The channels of this slice are equal.
    assert np.array_equal(grey, color)
