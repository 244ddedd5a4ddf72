"""Masks and overlays become PNG files."""

import cv2
import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.decode import decode_image, decode_mask
from contract.imaging.encode import (
    decode_png,
    encode_image,
    encode_int16,
    encode_labels,
    encode_mask,
    encode_overlay,
    encode_png,
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
    stored = cv2.imdecode(np.frombuffer(encode_mask(mask), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, mask * 255)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), "mask.png"), mask * 255)


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
        decode_image(encode_overlay(image, drawn_mask), "overlay.png")
        for drawn_mask in (mask, mask * 0)
    )
    np.testing.assert_array_equal((drawn != plain).any(axis=-1), mask != 0)
    if image.dtype == np.uint8:
        np.testing.assert_array_equal(plain, np.broadcast_to(image, plain.shape))
