"""The slices that are drawn after each epoch, as the network of a run sees them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from contract.config import Config
from contract.imaging.mask_encoding import MaskEncoding
from contract.imaging.segmentation_class import single_foreground
from contract.storage import open_storage
from tests.small import WINDOW
from trainer.data.dataset_index import SliceRecord
from trainer.data.preview_slices import load_own_slices, select_preview_slices

MASKS = MaskEncoding(single_foreground(), threshold=127)


def test_preview_slices_have_foreground_and_are_evenly_spaced() -> None:
    records = [
        SliceRecord(str(n), "p", "valid", "i", "m", 8, 8, (0.1 if 5 <= n < 15 else 0.0,))
        for n in range(20)
    ]
    assert list(select_preview_slices(records, 3)) == [5, 9, 14]
    assert len(select_preview_slices(records, 50)) == 10
    assert len(select_preview_slices(records, 0)) == 0


@pytest.mark.parametrize("neighbours", [0, 1])
def test_images_of_a_folder_have_the_size_of_the_network(neighbours: int, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    bright = np.zeros((48, 64), np.uint8)
    bright[:24] = 255
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), bright)
    cv2.imwrite(str(tmp_path / "masks" / "b.png"), 255 - bright)
    config = Config.model_validate(
        {"network": {"image_size": [24, 32]}, "data": {"neighbours": neighbours}}
    )
    first, second = load_own_slices(open_storage(str(tmp_path)), config, MASKS, WINDOW, 2)
    assert (first.name, second.name) == ("a", "b")
    assert first.mask is None
    assert first.image.shape == (24, 32, config.input_channels)
    assert (first.image[:11] == 1.0).all()
    assert (first.image[13:] == 0.0).all()
    assert second.mask is not None
    assert second.mask.shape == (24, 32)
    assert not second.mask[:11].any()
    assert second.mask[13:].all()

    by_windows = {"train.preview_source": str(tmp_path), "train.preview_windows": True}
    first, second = load_own_slices(
        open_storage(str(tmp_path)), config.with_values(by_windows), MASKS, WINDOW, 2
    )
    assert first.image.shape == (48, 64, config.input_channels)
    assert np.array_equal(first.image[..., 0], bright / 255)
    assert second.mask is not None
    assert np.array_equal(second.mask, bright == 0)
