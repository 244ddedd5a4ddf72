"""The files of a volume's slices: lossless, de-identified, and complete or not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.decode import read_image
from contract.imaging.mask_encoding import threshold_encoding
from contract.imaging.volume import Volume
from contract.imaging.volume_files import find_volumes
from contract.storage import LocalStorage
from tests.volumes import (
    COLUMN_MM,
    ROW_MM,
    SLICE_MM,
    label_array,
    reorder,
    standard_labels,
    standard_volume,
    write_nifti,
    write_series,
)
from trainer.data.importers.labels import LabeledVolume, LabelFile
from trainer.data.importers.slice_files import (
    ImportOptions,
    VolumeTask,
    crop_center,
    import_volume,
    index_of_file,
    volume_of_file,
)

STANDARD = standard_volume()


def create_task(folder: Path, volume: Volume = STANDARD, **options: Any) -> VolumeTask:
    """A DICOM series in a flipped order, its labels, and an output folder."""
    write_series(folder / "P1", reorder(volume, (0, 1, 2), (True, False, True)))
    labels = standard_labels((5, *volume.voxels.shape[1:]))
    (source,) = find_volumes(folder / "P1").volumes
    pair = LabeledVolume(source, LabelFile(write_nifti(folder / "l.nii.gz", labels)))
    output = LocalStorage(folder / "out")
    return VolumeTask("P1", "P1", pair, ImportOptions(**options), output, frozenset())


def keys(task: VolumeTask) -> list[str]:
    return [info.key for info in task.output.list_objects()]


def test_slices_are_lossless_and_in_the_standard_order(tmp_path: Path) -> None:
    task = create_task(tmp_path)
    record, existed = import_volume(task)
    assert not existed
    assert record.spacing_mm == (ROW_MM, COLUMN_MM, SLICE_MM)
    assert (record.orientation, record.source_orientation) == ("SPL", "IPR")
    np.testing.assert_allclose(np.array(record.affine), STANDARD.affine, atol=1e-6)
    assert record.labels == {1: int((label_array() == 1).sum()), 2: int((label_array() == 2).sum())}
    assert [*sorted(record.files), "volumes/P1.json"] == keys(task)
    for index, pixels in enumerate(STANDARD.voxels):
        image = read_image(task.output, f"images/P1-{index:04d}.tif")
        np.testing.assert_array_equal(image[..., 0], pixels)
        long_leg = threshold_encoding(0).read(task.output, f"masks/P1-{index:04d}.png")
        np.testing.assert_array_equal(long_leg, label_array()[index] > 0)
        short_leg = threshold_encoding(1).read(task.output, f"masks/P1-{index:04d}.png")
        np.testing.assert_array_equal(short_leg, label_array()[index] > 1)


def test_a_window_clips_and_slices_without_foreground_can_be_left_out(tmp_path: Path) -> None:
    task = create_task(tmp_path, window=(-100, 240), foreground_only=True)
    record, _ = import_volume(task)
    assert record.slices == 3
    image = read_image(task.output, "images/P1-0001.tif")
    np.testing.assert_array_equal(image[..., 0], np.clip(STANDARD.voxels[1], -100, 240))
    assert not task.output.exists("images/P1-0003.tif")


def test_labels_without_foreground_are_an_error_if_only_foreground_is_written(
    tmp_path: Path,
) -> None:
    task = create_task(tmp_path, foreground_only=True)
    empty = Volume(np.zeros_like(label_array()), STANDARD.affine)
    write_nifti(task.source.labels.path, empty)
    with pytest.raises(DataError, match="have no foreground: leave out --foreground-only"):
        import_volume(task)


def test_center_crops_are_copies_of_the_same_patient(tmp_path: Path) -> None:
    task = create_task(tmp_path, standard_volume((5, 64, 128)), center_crops=True)
    record, _ = import_volume(task)
    names = {key.rpartition("/")[2] for key in record.files if key.startswith("images")}
    assert record.slices == len(names) == 15
    assert {"P1-0000.tif", "P1-crop40-0000.tif", "P1-crop80-0000.tif"} <= names
    # 40 of 512 pixels are 5 of 64 and 10 of 128.
    whole = read_image(task.output, "images/P1-0000.tif")[..., 0]
    crop = read_image(task.output, "images/P1-crop40-0000.tif")[..., 0]
    assert crop.shape == whole.shape
    assert abs(int(crop[0, 0]) - int(whole[5, 10])) <= 2
    assert abs(int(crop[-1, -1]) - int(whole[58, 117])) <= 2


def test_image_and_mask_are_cropped_alike() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[20:40, 24:50] = 7
    pixels = labels.astype(np.int16) * 100
    cropped, mask = crop_center(pixels, labels, 80)
    assert set(np.unique(mask)) == {0, 7}
    assert np.mean((cropped > 350) == (mask == 7)) > 0.98
    assert mask.sum() > labels.sum()


def test_a_complete_volume_is_kept_and_another_is_written_again(tmp_path: Path) -> None:
    task = create_task(tmp_path)
    record, _ = import_volume(task)

    def repeat(**changes: Any) -> tuple[Any, bool]:
        return import_volume(
            VolumeTask(
                **{**vars(task), "existing": frozenset(set(keys(task)) - {"volumes/P1.json"})}
                | changes
            )
        )

    assert repeat() == (record, True)
    (tmp_path / "out/images/P1-0002.tif").write_bytes(b"damaged")
    assert repeat() == (record, False)
    task.output.delete("masks/P1-0002.png")
    assert repeat() == (record, False)
    fewer, existed = repeat(options=ImportOptions(foreground_only=True))
    assert not existed
    assert [*sorted(fewer.files), "volumes/P1.json"] == keys(task)
    write_nifti(
        task.source.labels.path, Volume(label_array() * np.uint8(3), standard_labels().affine)
    )
    assert repeat()[0].labels.keys() == {3, 6}


def test_values_beyond_int16_need_a_window(tmp_path: Path) -> None:
    bright = Volume(STANDARD.voxels.astype(np.int32) + 40000, STANDARD.affine)
    (source,) = find_volumes(write_nifti(tmp_path / "i.nii.gz", bright)).volumes
    task = create_task(tmp_path)
    pair = LabeledVolume(source, task.source.labels)
    with pytest.raises(DataError, match=r"i\.nii\.gz has values up to \d+, which do not fit in"):
        import_volume(VolumeTask(**{**vars(task), "source": pair}))
    options = ImportOptions(window=(0, 1000))
    record, _ = import_volume(VolumeTask(**{**vars(task), "source": pair, "options": options}))
    assert record.slices == len(STANDARD.voxels)


@pytest.mark.parametrize(
    ("key", "volume"),
    [
        ("images/P1-0001.tif", "P1"),
        ("masks/P1-crop40-0001.png", "P1"),
        ("masks/P1-v2-crop80-10000.png", "P1-v2"),
        ("images/notes.txt", None),
    ],
)
def test_the_volume_of_a_file(key: str, volume: str | None) -> None:
    assert volume_of_file(key) == volume


def test_the_index_of_a_file() -> None:
    assert index_of_file("masks/P1-v2-crop80-10000.png") == 10000
    with pytest.raises(ValueError, match=r"notes\.txt is not the file of a slice"):
        index_of_file("images/notes.txt")
