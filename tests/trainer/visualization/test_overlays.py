import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from contract.imaging.encode import decode_png, encode_png
from trainer.visualization import image_grid, overlays
from trainer.visualization.overlays import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE

# Linear-RGB simulation of full color blindness, Machado et al. 2009 (doi:10.1109/TVCG.2009.113).
BLINDNESS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


LEGEND = 26
"""Height of a legend of one line."""


def square(size: int, top: int, left: int, side: int) -> NDArray[np.uint8]:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def grey(size: int, value: int = 100) -> NDArray[np.uint8]:
    return np.full((size, size, 1), value, np.uint8)


def test_the_three_outcomes_have_their_colors():
    target, prediction = square(64, 8, 8, 32), square(64, 8, 24, 32)
    overlay = overlays.draw_overlay(grey(64), target, prediction, size=64)
    for position, color in (
        ((20, 30), TRUE_POSITIVE),
        ((20, 16), FALSE_NEGATIVE),
        ((20, 50), FALSE_POSITIVE),
    ):
        tint = 0.4 * 100 + 0.6 * np.array(color)
        assert overlay[position] == pytest.approx(tint, abs=1)
    assert overlay[60, 60] == pytest.approx(100)


def test_the_truth_is_outlined():
    overlay = overlays.draw_overlay(grey(64), square(64, 8, 8, 32), square(64, 0, 0, 64), size=64)
    assert (overlay[8, 8:40] == overlays.OUTLINE).all()
    assert (overlay[8:40, 39] == overlays.OUTLINE).all()


def test_without_a_prediction_the_truth_alone_is_tinted_so_that_the_slice_is_seen():
    overlay = overlays.draw_overlay(grey(64), square(64, 8, 8, 32), size=64)
    assert overlay[20, 20] == pytest.approx(0.65 * 100 + 0.35 * np.array(TRUE_POSITIVE), abs=1)


def test_the_window_decides_black_and_white():
    image = np.array([[[-1000], [0], [400], [3000]]], np.int32)
    overlay = overlays.draw_overlay(image, np.zeros((1, 4), np.uint8), window=(-200, 600), size=4)
    assert overlay[0, :, 0].tolist() == [0, 64, 191, 255]


def test_color_slices_stay_colored():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 200
    overlay = overlays.draw_overlay(image, np.zeros((8, 8), np.uint8), size=8)
    assert overlay[4, 4].tolist() == [200, 0, 0]


@pytest.mark.parametrize("size", [50, 256])
def test_a_slice_keeps_its_proportions(size):
    image = np.zeros((40, 100, 1), np.uint8)
    overlay = overlays.draw_overlay(image, np.zeros((40, 100), np.uint8), size=size)
    assert overlay.shape == (size * 40 // 100 + (size * 40 % 100 >= 50), size, 3)


def test_a_single_pixel_survives_shrinking():
    overlay = overlays.draw_overlay(grey(512), square(512, 100, 100, 1), size=64)
    assert (overlay == overlays.OUTLINE).all(axis=-1).any()


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("background", [0, 120, 240])
def test_the_colors_differ_for_every_eye(kind, background):
    tints = [
        0.4 * background + 0.6 * np.array(color)
        for color in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE)
    ]
    seen = [lab(simulated(tint / 255, kind)) for tint in tints]
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(one - other) > 20


def simulated(color: NDArray, kind: str) -> NDArray:
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    changed = np.clip(np.array(BLINDNESS[kind]) @ linear, 0, 1)
    return np.where(changed <= 0.0031308, changed * 12.92, 1.055 * changed ** (1 / 2.4) - 0.055)


def lab(color: NDArray) -> NDArray:
    return cv2.cvtColor(color.astype(np.float32)[None, None], cv2.COLOR_RGB2LAB)[0, 0]


def test_a_close_up_holds_the_truth_with_room_around_it():
    target, prediction = square(100, 5, 70, 20), square(100, 80, 0, 10)
    rows, columns = overlays.find_close_up(target, prediction)
    assert (rows.start, rows.stop) == (0, 36)
    assert (columns.start, columns.stop) == (62, 98)


def test_a_close_up_without_truth_shows_what_was_marked():
    rows, columns = overlays.find_close_up(np.zeros((100, 100), np.uint8), square(100, 80, 0, 10))
    assert (rows.start, rows.stop) == (70, 100)
    assert (columns.start, columns.stop) == (0, 30)


def test_a_close_up_is_never_too_close():
    rows, columns = overlays.find_close_up(square(100, 50, 50, 1), np.zeros((100, 100), np.uint8))
    assert rows.stop - rows.start == columns.stop - columns.start == 30


def test_a_close_up_of_nothing_is_the_middle():
    rows, columns = overlays.find_close_up(
        np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    )
    assert (rows.start, rows.stop) == (0, 40)
    assert (columns.start, columns.stop) == (10, 50)


def test_a_contact_sheet_lays_tiles_in_rows():
    tiles = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = image_grid.image_grid(tiles, 2)
    assert sheet.shape == (2 * 16 + 6, 2 * 26 + 6, 3)
    assert sheet[6 + 5, 6 + 10, 0] == 10
    assert sheet[6 + 5, 32 + 10, 0] == 20
    assert sheet[22 + 5, 6 + 10, 0] == 30
    assert sheet[22 + 5, 32 + 10, 0] == 255


def test_a_caption_stays_below_its_own_tile():
    tiles = [np.zeros((20, 60, 3), np.uint8)] * 2
    sheet = image_grid.image_grid(tiles, 2, ["a very long name of a patient and a slice", ""])
    caption = sheet[26:46]
    assert (caption[:, :66] < 128).any()
    assert (caption[:, 67:] == 255).all()


def test_a_contact_sheet_of_nothing_is_a_bug():
    with pytest.raises(ValueError, match="at least one"):
        image_grid.image_grid([], 3)


def epoch(slices: int, level: float) -> bytes:
    masks = np.stack([square(32, 8, 8, 16)] * slices)
    images = np.full((slices, 32, 32, 1), 0.5, np.float32)
    names = [f"p-{number}" for number in range(slices)]
    return image_grid.epoch_sheet(images, (masks * level).astype(np.float32), masks, names)


def test_an_epoch_sheet_compares_against_the_threshold():
    hit, missed = (decode_png(epoch(2, level)) for level in (0.9, 0.4))
    middle = (6 + 96, 6 + 96)
    assert hit[middle] == pytest.approx(0.4 * 127.5 + 0.6 * np.array(TRUE_POSITIVE), abs=1)
    assert missed[middle] == pytest.approx(0.4 * 127.5 + 0.6 * np.array(FALSE_NEGATIVE), abs=1)


def test_an_epoch_sheet_says_what_its_colors_mean():
    for slices in (1, 3):
        sheet = decode_png(epoch(slices, 0.9))
        legend = sheet[-50:]
        for color in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE):
            assert (legend == color).all(axis=-1).sum() == 12 * 12


def test_an_epoch_sheet_names_its_slices():
    sheets = []
    for name in ("p-1", "p-2"):
        target = square(32, 8, 8, 16)[None]
        image = np.full((1, 32, 32, 1), 0.5, np.float32)
        sheets.append(image_grid.epoch_sheet(image, target.astype(np.float32), target, [name]))
    assert sheets[0] != sheets[1]


def test_epochs_are_laid_in_their_order_over_one_legend():
    one = decode_png(epoch(3, 0.9))
    page = decode_png(image_grid.epoch_comparison({2: epoch(3, 0.9), 1: epoch(3, 0.1)}))
    assert page.shape == (2 * (one.shape[0] + 34) - LEGEND, one.shape[1], 3)
    assert (page[-one.shape[0] :] == one).all()


def test_epochs_of_more_and_of_fewer_slices_stand_in_one_picture():
    wide, narrow = decode_png(epoch(3, 0.9)), decode_png(epoch(1, 0.9))
    page = decode_png(image_grid.epoch_comparison({1: epoch(1, 0.9), 2: epoch(3, 0.9)}))
    assert page.shape[1] == wide.shape[1] > narrow.shape[1]
    assert (page[-wide.shape[0] :] == wide).all()
    above = narrow[: -LEGEND - 40]
    assert (page[34 : 34 + above.shape[0], : narrow.shape[1]] == above).all()


def test_at_most_eight_epochs_are_shown():
    sheets = {number: epoch(1, 0.9) for number in range(1, 21)}
    height = decode_png(sheets[1]).shape[0]
    # A single slice is so narrow that the legend takes three lines.
    legend = LEGEND + 40
    page = decode_png(image_grid.epoch_comparison(sheets))
    assert page.shape[0] == 8 * (height - legend + 34) + legend


@pytest.mark.parametrize(("count", "most"), [(3, 8), (8, 8), (20, 8), (100, 5)])
def test_the_first_and_the_last_are_chosen(count, most):
    chosen = image_grid.evenly_spaced(range(1, count + 1), most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert (chosen[0], chosen[-1]) == (1, count)
    assert chosen == sorted(chosen)


def test_png_keeps_every_pixel():
    overlay = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    assert (decode_png(encode_png(overlay)) == overlay).all()
