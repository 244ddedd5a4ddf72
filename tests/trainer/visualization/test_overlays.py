import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from contract.imaging.encode import decode_png, encode_png
from contract.imaging.segmentation_class import create_classes
from tests.masks import square
from trainer.visualization import overlays
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


def test_png_keeps_every_pixel():
    overlay = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    assert (decode_png(encode_png(overlay)) == overlay).all()


def test_every_class_is_filled_and_outlined_in_its_color():
    classes = create_classes({"liver": (255, 0, 0), "kidney": (0, 0, 255)})
    ground_truth = square(64, 8, 8, 16) + 2 * square(64, 40, 40, 16)
    prediction = 2 * square(64, 8, 8, 16)
    overlay = overlays.draw_overlay(grey(64), ground_truth, prediction, size=64, classes=classes)
    assert overlay[16, 16] == pytest.approx(0.65 * 100 + 0.35 * np.array((0, 0, 255)), abs=1)
    assert (overlay[8, 8:24] == (255, 0, 0)).all()
    assert (overlay[40, 40:56] == (0, 0, 255)).all()
    assert overlay[48, 48] == pytest.approx(100)


def test_outlines_of_several_masks_are_seen_where_they_coincide() -> None:
    mask, classes = square(64, 8, 8, 32), square(64, 8, 8, 32)
    classes[8:40, 24:40] *= 2
    outlines = [
        overlays.Outline(mask, overlays.OUTLINE_A),
        overlays.Outline(mask, overlays.OUTLINE_B, dashed=True),
    ]
    drawn = overlays.draw_outlines(grey(64), outlines, size=64)
    colors = {tuple(color) for color in drawn[8, 8:40].tolist()}
    assert colors == {overlays.OUTLINE_A, overlays.OUTLINE_B}
    assert (drawn[20, 20] == 100).all()
    # The border between two classes belongs to the outlines of both.
    borders = overlays.draw_outlines(grey(64), [overlays.Outline(classes, (1, 2, 3))], size=64)
    assert (borders[12:36, 23:25] == (1, 2, 3)).all()
