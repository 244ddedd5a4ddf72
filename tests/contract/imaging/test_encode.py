"""Masks and overlays become PNG files."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from contract.errors import DataError
from contract.imaging.decode import decode_image, decode_mask
from contract.imaging.encode import (
    decode_encoded_mask,
    decode_png,
    encode_image,
    encode_int16,
    encode_labels,
    encode_mask,
    encode_overlay,
    encode_png,
    encode_probability,
    probability_suffix,
)
from contract.imaging.segmentation_class import (
    MaskFormat,
    SegmentationClass,
    create_classes,
    single_foreground,
)

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
RGB = np.dstack([GREY, GREY[::-1], 255 - GREY])
DEEP = GREY.astype(np.uint16) * 120


@pytest.mark.parametrize("image", [RGB, GREY])
def test_a_png_has_the_same_pixels(image: np.ndarray) -> None:
    decoded = decode_png(encode_png(image))
    expected = image if image.ndim == 3 else np.dstack([image] * 3)
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize(
    "image", [GREY[..., None], RGB, -DEEP.astype(np.int16)[..., None], DEEP[..., None] * 2]
)
def test_an_encoded_slice_decodes_to_the_same_values(image: np.ndarray) -> None:
    decoded = decode_image(encode_image(image), "slice")
    np.testing.assert_array_equal(decoded, image)


def test_values_of_more_than_16_bits_are_an_error() -> None:
    for values in ([-1, 40000], [0, 70000], [-40000, 0]):
        with pytest.raises(DataError, match=f"from {values[0]} to {values[1]} does not fit"):
            encode_image(np.array([values], np.int32))


def test_other_bytes_are_not_a_png() -> None:
    with pytest.raises(ValueError, match="not a PNG image"):
        decode_png(b"text")


def test_a_mask_comes_back_as_0_and_255() -> None:
    mask = (GREY > 100).astype(np.uint8)
    png = encode_mask(mask, single_foreground())
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, mask * 255)
    np.testing.assert_array_equal(decode_mask(png, "mask.png"), mask * 255)
    np.testing.assert_array_equal(decode_encoded_mask(png, single_foreground(), "indices"), mask)


WINDOW = (0.0, 255.0)
BY_VALUE = create_classes({"liver": 10, "kidney": 1000})
BY_COLOR = create_classes({"liver": (255, 0, 0), "kidney": (0, 128, 0)})
GREY_COLORS = create_classes({"liver": (80, 80, 80), "kidney": (200, 200, 200)})


@pytest.mark.parametrize("classes", [BY_VALUE, BY_COLOR, GREY_COLORS])
@pytest.mark.parametrize("mask_format", ["indices", "values", "colors"])
def test_a_mask_of_classes_comes_back(
    classes: tuple[SegmentationClass, ...], mask_format: MaskFormat
) -> None:
    mask = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)
    png = encode_mask(mask, classes, mask_format)
    np.testing.assert_array_equal(decode_encoded_mask(png, classes, mask_format), mask)


def test_a_mask_of_classes_is_a_palette_or_values_or_colors() -> None:
    mask = np.array([[0, 1, 2]], np.uint8)
    colors = [[0, 0, 0], [255, 0, 0], [0, 128, 0]]
    with Image.open(io.BytesIO(encode_mask(mask, BY_COLOR))) as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == [[0, 1, 2]]
        assert np.asarray(image.convert("RGB"))[0].tolist() == colors
    values = decode_mask(encode_mask(mask, BY_VALUE, "values"), "mask")
    assert values.tolist() == [[0, 10, 1000]]
    in_color = decode_image(encode_mask(mask, BY_COLOR, "colors"), "mask")
    assert in_color[0].tolist() == colors


def test_probabilities_of_one_class_have_16_bits() -> None:
    probability = np.array([[[0.0], [0.25], [1.0]]], np.float32)
    assert probability_suffix(single_foreground()) == ".png"
    data = encode_probability(probability, single_foreground())
    assert decode_image(data, "probability")[..., 0].tolist() == [[0, 16384, 65535]]


def test_probabilities_of_classes_are_arrays() -> None:
    probability = np.random.default_rng(0).random((3, 4, 2)).astype(np.float32)
    assert probability_suffix(BY_VALUE) == ".npz"
    data = encode_probability(probability, BY_VALUE)
    with np.load(io.BytesIO(data)) as arrays:
        np.testing.assert_array_equal(arrays["probability"], probability)
        assert arrays["classes"].tolist() == ["liver", "kidney"]


@pytest.mark.parametrize("offset", [0, -1024])
def test_hounsfield_units_come_back_unchanged(offset: int) -> None:
    """Also without negative values, which encode_image would store as PNG."""
    units = GREY.astype(np.int16) * 12 + np.int16(offset)
    np.testing.assert_array_equal(decode_image(encode_int16(units), "a.tif")[..., 0], units)


@pytest.mark.parametrize("labels", [GREY % 5, DEEP])
def test_labels_come_back_with_their_values(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_mask(encode_labels(labels), "a.png"), labels)


@pytest.mark.parametrize("image", [GREY[..., None], RGB, DEEP.astype(np.int32)[..., None]])
def test_an_overlay_tints_the_mask_alone(image: np.ndarray) -> None:
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[5:9, 5:9] = 1
    drawn, plain = (
        decode_image(encode_overlay(image, drawn_mask, single_foreground(), WINDOW), "overlay.png")
        for drawn_mask in (mask, mask * 0)
    )
    np.testing.assert_array_equal((drawn != plain).any(axis=-1), mask != 0)
    if image.dtype == np.uint8:
        np.testing.assert_array_equal(plain, np.broadcast_to(image, plain.shape))


def test_an_overlay_of_classes_has_their_colors_and_names() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:10, :10], mask[20:30, 20:30] = 1, 2
    image = np.zeros((40, 60, 1), np.uint8)
    overlay = decode_image(encode_overlay(image, mask, BY_COLOR, WINDOW), "overlay.png")
    assert overlay.shape == (40 + 2 * 16, 60, 3)
    assert overlay[5, 5].tolist() == [102, 0, 0]
    assert overlay[25, 25].tolist() == [0, 51, 0]
    for line, each in enumerate(BY_COLOR):
        legend = overlay[40 + 16 * line : 56 + 16 * line]
        assert (legend == each.color).all(axis=-1).sum() == 100
        assert legend[:, 18:].max() > 200


def test_an_overlay_shows_the_intensities_of_the_window() -> None:
    image = np.array([[-200, 0, 50, 100, 900]], np.int32)[..., None]
    png = encode_overlay(image, np.zeros((1, 5), np.uint8), single_foreground(), (0.0, 100.0))
    assert decode_image(png, "overlay.png")[0, :, 0].tolist() == [0, 0, 128, 255, 255]
