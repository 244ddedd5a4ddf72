"""Volumes of predicted slices, in files: as many as there are, and never on a full disk."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from contract.errors import StorageError
from contract.imaging.encode import encode_image
from contract.imaging.mask_encoding import threshold_encoding
from contract.storage import LocalStorage
from trainer.data.dataset_index import SliceRecord
from trainer.evaluation.predicted_volumes import predict_volumes
from trainer.evaluation.slice_reader import Mask, Pixels, Probability, SliceReader

VALUES, SIZES = 8, (4, 6)


def make_record(number: int, height: int, width: int) -> SliceRecord:
    """A slice of a patient of its own, whose image is one of a few."""
    name = f"{height}-{number % VALUES}"
    return SliceRecord(
        f"P{number}",
        f"P{number}",
        "valid",
        f"{name}.png",
        f"{name}-mask.png",
        height,
        width,
        (0.0,),
    )


def make_reader(folder: Path) -> SliceReader:
    """The images of make_record, each of one value; the masks of odd ones are foreground."""
    for size in SIZES:
        for value in range(VALUES):
            blank = np.ones((size, 5, 1), np.uint8)
            (folder / f"{size}-{value}.png").write_bytes(encode_image(blank * value))
            mask = encode_image(blank * (255 * (value % 2)))
            (folder / f"{size}-{value}-mask.png").write_bytes(mask)
    return SliceReader(LocalStorage(folder), threshold_encoding(127), (0.0, 255.0))


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let this process open only a few more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_many_volumes_of_one_slice_share_files_and_batches(tmp_path: Path) -> None:
    batches: list[int] = []

    def predict(slices: Pixels) -> tuple[Mask, Probability]:
        batches.append(len(slices))
        probability = (slices / VALUES).astype(np.float32)
        return np.zeros(slices.shape[:3], np.uint8), np.concatenate([probability] * 2, -1)

    records = [make_record(number, SIZES[number % 3 == 0], 5) for number in range(300)]
    reader = make_reader(tmp_path)
    done: list[None] = []
    with (
        few_descriptors(spare=40),
        predict_volumes(records, reader, predict, 2, 50, lambda: done.append(None)) as volumes,
    ):
        assert [volume.patient for volume in volumes] == [record.patient for record in records]
        for number, (record, volume) in enumerate(zip(records, volumes, strict=True)):
            value = number % VALUES
            assert volume.y_true.shape == (1, record.height, 5)
            assert (volume.y_true == value % 2).all()
            assert volume.probability.shape == (1, record.height, 5, 2)
            assert (volume.probability == np.float32(value / VALUES)).all()
    assert batches == [50] * 6
    assert len(done) == len(records)


def test_a_disk_without_space_is_an_error_before_the_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def predict(slices: Pixels) -> tuple[Mask, Probability]:
        raise AssertionError("nothing is predicted")

    reader = SliceReader(LocalStorage(tmp_path), threshold_encoding(127), (0.0, 255.0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for side, limit in ((2**24, before[0]), (100, 1000)):
        # More than any disk has, and more than this process may write.
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        message = rf"{tmp_path} cannot hold the {5 * side**2} bytes .*set TMPDIR"
        try:
            with (
                pytest.raises(StorageError, match=message),
                predict_volumes([make_record(0, side, side)], reader, predict, 1, 1, lambda: None),
            ):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
