"""Grids of images, and the preview sheets of one and of several epochs."""

import numpy as np
import pytest

from contract.imaging.encode import decode_png
from contract.imaging.segmentation_class import single_foreground
from tests.masks import square
from trainer.visualization import image_grid
from trainer.visualization.overlays import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    NO_GROUND_TRUTH,
    TRUE_POSITIVE,
)

LEGEND = 26
"""Height of a legend of one line."""


def test_a_contact_sheet_lays_tiles_in_rows() -> None:
    tiles = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = image_grid.image_grid(tiles, 2)
    assert sheet.shape == (2 * 16 + 6, 2 * 26 + 6, 3)
    assert sheet[6 + 5, 6 + 10, 0] == 10
    assert sheet[6 + 5, 32 + 10, 0] == 20
    assert sheet[22 + 5, 6 + 10, 0] == 30
    assert sheet[22 + 5, 32 + 10, 0] == 255


def test_a_caption_stays_below_its_own_tile() -> None:
    tiles = [np.zeros((20, 60, 3), np.uint8)] * 2
    sheet = image_grid.image_grid(tiles, 2, ["a very long name of a patient and a slice", ""])
    caption = sheet[26:46]
    assert (caption[:, :66] < 128).any()
    assert (caption[:, 67:] == 255).all()


def test_a_contact_sheet_of_nothing_is_a_bug() -> None:
    with pytest.raises(ValueError, match="at least one"):
        image_grid.image_grid([], 3)


def epoch(slices: int, predicted: bool = True) -> bytes:
    masks = [square(32, 8, 8, 16)] * slices
    images = [np.full((32, 32, 1), 0.5, np.float32)] * slices
    names = [f"p-{number}" for number in range(slices)]
    predictions = masks if predicted else [np.zeros_like(mask) for mask in masks]
    return image_grid.epoch_sheet(images, predictions, masks, names, single_foreground())


def test_an_epoch_sheet_colors_the_pixels_by_true_and_false() -> None:
    hit, missed = (decode_png(epoch(2, predicted)) for predicted in (True, False))
    middle = (6 + 96, 6 + 96)
    assert hit[middle] == pytest.approx(0.4 * 127.5 + 0.6 * np.array(TRUE_POSITIVE), abs=1)
    assert missed[middle] == pytest.approx(0.4 * 127.5 + 0.6 * np.array(FALSE_NEGATIVE), abs=1)


def test_an_epoch_sheet_says_what_its_colors_mean() -> None:
    for slices in (1, 3):
        sheet = decode_png(epoch(slices))
        legend = sheet[-50:]
        for color in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE):
            assert (legend == color).all(axis=-1).sum() == 12 * 12


def test_a_prediction_without_ground_truth_has_a_color_of_its_own() -> None:
    prediction = square(32, 8, 8, 16)
    image = np.full((32, 32, 1), 0.5, np.float32)
    sheet, labeled = (
        decode_png(
            image_grid.epoch_sheet([image], [prediction], [mask], ["a"], single_foreground())
        )
        for mask in (None, prediction)
    )
    middle = (6 + 96, 6 + 96)
    assert sheet[middle] == pytest.approx(0.65 * 127.5 + 0.35 * np.array(NO_GROUND_TRUTH), abs=1)
    assert labeled[middle] == pytest.approx(0.4 * 127.5 + 0.6 * np.array(TRUE_POSITIVE), abs=1)
    # Or the sheets of several epochs would not fit together.
    assert sheet.shape == labeled.shape


def test_an_epoch_sheet_names_its_slices() -> None:
    sheets = []
    for name in ("p-1", "p-2"):
        target = square(32, 8, 8, 16)
        image = np.full((32, 32, 1), 0.5, np.float32)
        sheets.append(
            image_grid.epoch_sheet([image], [target], [target], [name], single_foreground())
        )
    assert sheets[0] != sheets[1]


def test_epochs_are_laid_in_their_order_over_one_legend() -> None:
    one = decode_png(epoch(3))
    page = decode_png(
        image_grid.epoch_comparison(
            {2: epoch(3), 1: epoch(3, predicted=False)}, single_foreground()
        )
    )
    assert page.shape == (2 * (one.shape[0] + 34) - LEGEND, one.shape[1], 3)
    assert (page[-one.shape[0] :] == one).all()


def test_epochs_of_more_and_of_fewer_slices_stand_in_one_picture() -> None:
    wide, narrow = decode_png(epoch(3)), decode_png(epoch(1))
    page = decode_png(image_grid.epoch_comparison({1: epoch(1), 2: epoch(3)}, single_foreground()))
    assert page.shape[1] == wide.shape[1] > narrow.shape[1]
    assert (page[-wide.shape[0] :] == wide).all()
    above = narrow[: -LEGEND - 40]
    assert (page[34 : 34 + above.shape[0], : narrow.shape[1]] == above).all()


def test_at_most_eight_epochs_are_shown() -> None:
    sheets = {number: epoch(1) for number in range(1, 21)}
    height = decode_png(sheets[1]).shape[0]
    # A single slice is so narrow that the legend takes three lines.
    legend = LEGEND + 40
    page = decode_png(image_grid.epoch_comparison(sheets, single_foreground()))
    assert page.shape[0] == 8 * (height - legend + 34) + legend


@pytest.mark.parametrize(("count", "most"), [(3, 8), (8, 8), (20, 8), (100, 5)])
def test_the_first_and_the_last_are_chosen(count: int, most: int) -> None:
    chosen = image_grid.evenly_spaced(range(1, count + 1), most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert (chosen[0], chosen[-1]) == (1, count)
    assert chosen == sorted(chosen)
