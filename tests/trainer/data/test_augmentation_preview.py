from dataclasses import replace

import numpy as np
import pytest

from contract.config import Augment, Config, Data, UNet
from contract.imaging.encode import decode_png
from contract.storage import open_storage
from trainer.data.augmentation import PROBABILITIES
from trainer.data.augmentation_preview import active_augmentations, draw_augmentation_preview
from trainer.data.dataset_index import Dataset

SWITCHED_OFF: dict[str, float] = dict.fromkeys(PROBABILITIES, 0.0)


def draw(prepared, **augment: float) -> bytes | None:
    data: Data = prepared.config.data
    changed = data.augment.model_dump() | SWITCHED_OFF | augment
    data = data.model_copy(update={"augment": Augment.model_validate(changed)})
    dataset: Dataset = prepared.dataset
    return draw_augmentation_preview(
        dataset, data, UNet(image_size=32), 1, open_storage(dataset.root)
    )


def test_every_setting_that_switches_an_augmentation_on_is_known():
    ranges = set(Augment.model_fields) - set(PROBABILITIES)
    assert {f"{name}_probability" for name in ranges} <= set(PROBABILITIES)
    assert len(PROBABILITIES) == 19


def test_every_copy_of_a_flip_is_the_mirrored_original(prepared):
    png = draw(prepared, flip_horizontal=1.0)
    assert png is not None
    pixels = decode_png(png)
    tile, step = 176, 176 + 6
    original = pixels[6 : 6 + tile, 6 : 6 + tile]
    assert not np.array_equal(original, original[:, ::-1])
    for column in range(1, 6):
        copy = pixels[6 : 6 + tile, 6 + column * step : 6 + column * step + tile]
        difference = np.abs(copy.astype(int) - original[:, ::-1].astype(int))
        # The outline is drawn on one side of an edge.
        assert np.mean(difference.max(axis=2) > 8) < 0.02


@pytest.mark.parametrize("count", [1, 3])
def test_each_augmentation_has_a_row_of_its_own(prepared, count):
    names = ("rotation_probability", "noise_probability", "cutout_probability")[:count]
    png = draw(prepared, **dict.fromkeys(names, 0.5))
    assert png is not None
    assert decode_png(png).shape[0] == 6 + (1 + count) * (176 + 20 + 6)


def test_without_augmentation_there_is_no_picture(prepared):
    assert draw(prepared) is None
    assert active_augmentations(Config().data.augment)


def test_the_center_of_a_stack_is_shown(prepared):
    (alone, stacked) = (
        draw(replace(prepared, config=prepared.config.with_values(values)), flip_horizontal=1.0)
        for values in ({}, {"data.neighbours": 1})
    )
    assert alone is not None
    assert alone == stacked
