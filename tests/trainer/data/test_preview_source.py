"""The images of a folder that a run draws, and the masks that belong to them."""

from pathlib import Path

import pytest

from contract.config import Train
from contract.errors import DataError
from contract.storage import open_storage
from trainer.data.preview_source import check_preview_source, find_own_slices


def create_files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_images_and_masks_are_paired_by_name(tmp_path: Path) -> None:
    create_files(tmp_path, "images/b.png", "images/a.jpg", "images/._a.jpg", "masks/a.png")
    create_files(tmp_path, "images/p/c.png", "masks/p/c.png", "masks/d.png", "overview.png")
    assert find_own_slices(open_storage(str(tmp_path))) == [
        ("images/a.jpg", "masks/a.png"),
        ("images/b.png", None),
        ("images/p/c.png", "masks/p/c.png"),
    ]


def test_a_folder_of_images_alone_has_no_masks(tmp_path: Path) -> None:
    create_files(tmp_path, "b.png", "a.png", "notes.txt")
    assert find_own_slices(open_storage(str(tmp_path))) == [("a.png", None), ("b.png", None)]


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    create_files(tmp_path, "masks/a.png")
    train = Train(preview_source=str(tmp_path))
    with pytest.raises(
        DataError, match=r"no images in train\.preview_source = .*validation slices"
    ):
        check_preview_source(train)
    check_preview_source(train.model_copy(update={"preview_images": 0}))
    check_preview_source(Train())
