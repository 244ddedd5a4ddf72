"""From mask files to class indices: thresholds, grey values, palettes, colors, edges, JPEG."""

import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.errors import DataError
from contract.imaging.mask_encoding import MaskEncoding, format_value, threshold_encoding
from contract.imaging.segmentation_class import Color, create_classes

VALUES = MaskEncoding(create_classes({"liver": 1, "kidney": 2}))
RED, GREEN, BLUE = (220, 20, 20), (0, 160, 60), (30, 60, 230)
COLORS = MaskEncoding(create_classes({"liver": RED, "kidney": GREEN, "spleen": BLUE}))


def file_of(pixels: NDArray[np.uint8], suffix: str = ".png", *options: int) -> bytes:
    """A file's bytes; colors are given as RGB."""
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode(suffix, stored, options)[1].tobytes()


def blobs(size: int = 128) -> NDArray[np.uint8]:
    """Class indices with two classes that touch each other and one that is alone."""
    mask = np.zeros((size, size), np.uint8)
    cv2.circle(mask, (40, 40), 24, 1, -1)
    cv2.circle(mask, (66, 48), 18, 2, -1)
    cv2.ellipse(mask, (80, 100), (30, 12), 20, 0, 360, 3, -1)
    return mask


def painted(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask in the colors of its classes."""
    table = np.array([(0, 0, 0), RED, GREEN, BLUE], np.uint8)
    return table[mask]


def smoothed(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask in color, drawn at four times the size and reduced: its edges are anti-aliased."""
    large = cv2.resize(mask, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    large = cv2.warpAffine(
        large,
        np.array([[1, 0, 1.7], [0, 1, 2.3]]),
        (large.shape[1], large.shape[0]),
        flags=cv2.INTER_NEAREST,
    )
    small = cv2.resize(painted(large.astype(np.uint8)), mask.shape, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8)


def test_the_foreground_is_above_a_threshold() -> None:
    data = file_of(np.array([[0, 127, 128, 255]], np.uint8))
    assert threshold_encoding(127).decode(data, "m").tolist() == [[0, 0, 1, 1]]
    assert threshold_encoding(0).decode(data, "m").tolist() == [[0, 1, 1, 1]]


def test_grey_values_are_classes() -> None:
    mask = VALUES.decode(file_of(np.array([[0, 1, 2]], np.uint8)), "m")
    assert (mask.dtype, mask.tolist()) == (np.uint8, [[0, 1, 2]])


def test_the_indices_of_a_palette_are_classes() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    stream = io.BytesIO()
    image.save(stream, "png")
    assert VALUES.decode(stream.getvalue(), "m").tolist() == [[0, 1, 2]]


def test_colors_are_classes() -> None:
    mask = blobs()
    np.testing.assert_array_equal(COLORS.decode(file_of(painted(mask)), "m"), mask)


def test_a_grey_file_without_foreground_is_background() -> None:
    assert not COLORS.decode(file_of(np.zeros((9, 9), np.uint8)), "m").any()


@pytest.mark.parametrize("quality", [60, 80, 95])
def test_jpeg_masks_in_color_are_read(quality: int) -> None:
    mask = blobs()
    data = file_of(painted(mask), ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)
    decoded = COLORS.decode(data, "m.jpg")
    for index in (1, 2, 3):
        overlap = ((decoded == index) & (mask == index)).sum()
        assert 2 * overlap / ((decoded == index).sum() + (mask == index).sum()) > 0.95


def test_the_pixels_of_a_smoothed_edge_have_the_nearer_class() -> None:
    mask = blobs()
    image = smoothed(mask)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 8
    decoded = COLORS.decode(file_of(image), "m.png")
    assert (decoded != mask).mean() < 0.01
    sure = (image[..., None, :] == np.array([(0, 0, 0), RED, GREEN, BLUE])).all(-1)
    for index in range(4):
        assert (decoded[sure[..., index]] == index).all()


def test_the_value_of_no_class_is_an_error_that_counts_it() -> None:
    image = painted(blobs())
    image[2:6, 2:7] = (240, 240, 0)
    with pytest.raises(
        DataError, match=r"m\.png: 20 pixels have a color of no class: #f0f000 \(20 pixels\)"
    ):
        COLORS.decode(file_of(image), "m.png")
    with pytest.raises(DataError, match=r"1 pixels have a value of no class: 7 \(1 pixels\)"):
        VALUES.decode(file_of(np.array([[0, 1, 7]], np.uint8)), "m")


def test_an_outline_in_another_color_is_no_smoothed_edge() -> None:
    mask = blobs()
    image = painted(mask)
    outline = cv2.dilate((mask == 3).astype(np.uint8), np.ones((3, 3), np.uint8)) - (mask == 3)
    image[outline > 0] = (255, 255, 255)
    with pytest.raises(DataError, match=rf"{outline.sum()} pixels .*#ffffff"):
        COLORS.decode(file_of(image), "m.png")


def test_values_of_no_class_can_be_background() -> None:
    encoding = MaskEncoding(VALUES.classes, other_is_background=True)
    assert encoding.decode(file_of(np.array([[0, 1, 7]], np.uint8)), "m").tolist() == [[0, 1, 0]]


def test_a_tolerance_can_be_set() -> None:
    encoding = MaskEncoding(create_classes({"liver": 100, "kidney": 200}), tolerance=10)
    data = file_of(np.array([[9, 91, 109, 190]], np.uint8))
    assert encoding.decode(data, "m").tolist() == [[0, 1, 1, 2]]


@pytest.mark.parametrize(("value", "text"), [(3, "3"), ((255, 128, 0), "#ff8000")])
def test_a_value_is_a_number_or_a_hex_color(value: int | Color, text: str) -> None:
    assert format_value(value) == text


def strip_next_to_a_square(
    square: int | Color, strip: int | Color, width: int
) -> NDArray[np.uint8]:
    """64 x 64: a square in rows and columns 10:40, and a strip of another value to its right."""
    shape = (64, 64) if isinstance(square, int) else (64, 64, 3)
    image = np.zeros(shape, np.uint8)
    image[10:40, 10:40] = square
    image[10:40, 40 : 40 + width] = strip
    return image


@pytest.mark.parametrize("width", [1, 2, 3, 12])
def test_a_label_of_no_class_next_to_a_class_is_not_its_edge(width: int) -> None:
    data = file_of(strip_next_to_a_square(6, 4, width))
    classes = create_classes({"liver": 6})
    with pytest.raises(DataError, match=rf"{30 * width} pixels have a value of no class: 4"):
        MaskEncoding(classes).decode(data, "m")
    mask = MaskEncoding(classes, other_is_background=True).decode(data, "m")
    assert mask.sum() == 30 * 30
    image = Image.fromarray(strip_next_to_a_square(6, 4, width))
    image.putpalette([channel for index in range(7) for channel in (index * 30, 0, 0)])
    stream = io.BytesIO()
    image.save(stream, "png")
    with pytest.raises(DataError, match="of no class: 4"):
        MaskEncoding(classes).decode(stream.getvalue(), "m")


def test_a_color_of_no_class_in_a_jpeg_file_takes_nothing_from_its_neighbor() -> None:
    image = strip_next_to_a_square((255, 0, 0), (255, 255, 0), 12)
    data = file_of(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
    classes = create_classes({"liver": (255, 0, 0)})
    with pytest.raises(DataError, match="of no class"):
        MaskEncoding(classes).decode(data, "m")
    mask = MaskEncoding(classes, other_is_background=True).decode(data, "m")
    assert abs(int(mask.sum()) - 30 * 30) < 60


@pytest.mark.parametrize("value", [70, 100, 200, 255])
def test_every_grey_level_of_a_smoothed_edge_has_the_nearer_class(value: int) -> None:
    levels = np.arange(1, value, dtype=np.uint8)
    # Each level is between the class and the background.
    image = np.zeros((3, len(levels)), np.uint8)
    image[0], image[1] = value, levels
    mask = MaskEncoding(create_classes({"liver": value})).decode(file_of(image), "m")
    assert mask[1].tolist() == [int(2 * int(level) > value) for level in levels]


def test_an_edge_in_a_jpeg_file_is_not_the_class_of_the_levels_in_between() -> None:
    disc = cv2.circle(np.zeros((128, 128), np.uint8), (64, 64), 40, 255, -1)
    blurred = cv2.GaussianBlur(disc, (0, 0), 1.0).astype(np.uint8)
    classes = create_classes({"a": 85, "b": 170, "c": 255})
    mask = MaskEncoding(classes).decode(file_of(blurred, ".jpg"), "m.jpg")
    assert set(np.unique(mask)) == {0, 3}
    overlap = ((mask == 3) & (disc > 0)).sum()
    assert 2 * overlap / ((mask == 3).sum() + (disc > 0).sum()) > 0.97


def test_labels_in_a_jpeg_file_are_an_error() -> None:
    with pytest.raises(DataError, match=r"m\.jpg is a JPEG file, .*: save the masks as PNG"):
        VALUES.decode(file_of(blobs(), ".jpg"), "m.jpg")


def test_lossy_webp_is_read_like_jpeg() -> None:
    mask = blobs()
    data = file_of(painted(mask), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80)
    decoded = COLORS.decode(data, "m.webp")
    assert (decoded == mask).mean() > 0.98
