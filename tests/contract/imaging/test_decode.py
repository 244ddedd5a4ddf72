"""Slices and masks decoded as stored; whatever cannot be used is named."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.errors import DataError, StorageError
from contract.imaging.arrays import to_grey
from contract.imaging.decode import (
    decode_image,
    decode_mask,
    decode_mask_colors,
    decode_stack,
    is_lossy,
    read_image,
)
from contract.imaging.encode import encode_image, encode_stack
from contract.storage import Storage, open_storage

# Smooth, so that JPEG keeps it nearly as it is.
GREY = np.add.outer(np.arange(40), 3 * np.arange(50)).astype(np.uint8)
RGB = np.dstack([GREY, GREY // 2, 255 - GREY])
WIDE = GREY.astype(np.uint16) * 120


def encoded(suffix: str, pixels: NDArray) -> bytes:
    """A file's bytes; colors are given as RGB or RGBA."""
    if pixels.ndim == 3:
        code = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        pixels = cv2.cvtColor(pixels, code)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def saved_by_pillow(pixels: np.ndarray, suffix: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, suffix[1:], lossless=True)
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".tiff"])
@pytest.mark.parametrize("pixels", [GREY[..., None], RGB])
def test_8_bit_pictures_are_read_as_stored(suffix: str, pixels: NDArray, store: Storage) -> None:
    store.write(f"a{suffix}", encoded(suffix, pixels.squeeze()))
    image = read_image(store, f"a{suffix}")
    assert image.dtype == np.uint8
    assert image.shape == pixels.shape
    # JPEG loses a little of colors.
    assert np.abs(image.astype(int) - pixels).mean() < (6 if suffix == ".jpg" else 1e-9)


def test_alpha_is_dropped() -> None:
    rgba = np.dstack([RGB, np.full_like(GREY, 77)])
    assert np.array_equal(decode_image(encoded(".png", rgba), "a.png"), RGB)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_images_become_int32(suffix: str) -> None:
    image = decode_image(encoded(suffix, WIDE), "a")
    assert image.dtype == np.int32
    assert np.array_equal(image[..., 0], WIDE)


def test_signed_tiff_keeps_its_negative_values() -> None:
    signed = WIDE.astype(np.int16) - 1000
    assert np.array_equal(decode_image(encoded(".tif", signed), "a")[..., 0], signed)


def test_unsigned_16_bits_are_kept() -> None:
    unsigned = np.array([[0, 32767, 32768, 65535]], np.uint16)
    image = decode_image(encoded(".png", unsigned), "a.png")
    assert image.dtype == np.int32
    assert image[..., 0].tolist() == unsigned.tolist()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_gif_and_webp_are_read(suffix: str) -> None:
    disc = cv2.circle(np.zeros((40, 50), np.uint8), (20, 20), 10, 255, -1)
    data = saved_by_pillow(disc, suffix)
    image = decode_image(data, f"a{suffix}")
    assert image.shape == (40, 50, 3)
    np.testing.assert_array_equal(image, np.dstack([disc] * 3))
    np.testing.assert_array_equal(decode_mask(data, f"a{suffix}"), disc)
    with pytest.raises(DataError, match=rf"a\{suffix} cannot be decoded"):
        decode_image(data[:-20], f"a{suffix}")


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_is_an_error(suffix: str) -> None:
    animation = cv2.Animation()
    animation.frames = [np.full((16, 16, 3), value, np.uint8) for value in (20, 200)]
    animation.durations = [100, 100]
    data = cv2.imencodeanimation(suffix, animation)[1].tobytes()
    with pytest.raises(DataError, match=r"(several|2) images"):
        decode_image(data, f"a{suffix}")


@pytest.mark.parametrize("value", [0, 255])
def test_content_in_the_alpha_channel_is_an_error(value: int) -> None:
    color = np.full_like(RGB, value)
    with pytest.raises(DataError, match=r"a\.png .* alpha channel"):
        decode_image(encoded(".png", np.dstack([color, GREY])), "a.png")
    opaque = np.dstack([color, np.full_like(GREY, 255)])
    assert np.array_equal(decode_image(encoded(".png", opaque), "a.png"), color)


def test_other_types_are_rejected() -> None:
    with pytest.raises(DataError, match=r"a\.tif cannot be decoded: .* more than 16 bits"):
        decode_image(encoded(".tif", GREY.astype(np.float32)), "a.tif")


def test_a_tiff_of_several_pages_is_rejected() -> None:
    pages = cv2.imencodemulti(".tif", [GREY, GREY, GREY])[1].tobytes()
    with pytest.raises(
        DataError, match=r"a\.tif cannot be decoded: the TIFF image contains several images"
    ):
        decode_image(pages, "a.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.98])
def test_truncated_files_are_named(
    suffix: str, pixels: NDArray, kept: float, store: Storage, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = encoded(suffix, pixels)
    store.write(f"cut{suffix}", whole[: int(len(whole) * kept)])
    with pytest.raises(DataError, match=rf"{store.url}/cut{suffix} cannot be decoded"):
        read_image(store, f"cut{suffix}")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_last_byte_counts(suffix: str) -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_image(encoded(suffix, GREY)[:-1], "a")


def test_a_missing_file_is_a_storage_error(store: Storage) -> None:
    with pytest.raises(StorageError, match=r"no\.png"):
        read_image(store, "no.png")


def test_16_bit_masks_are_read() -> None:
    assert decode_mask(encoded(".png", np.array([[0, 700]], np.uint16)), "m").tolist() == [[0, 700]]


def test_a_grey_mask_saved_in_colors_is_fine() -> None:
    disc = cv2.circle(np.zeros((64, 64), np.uint8), (30, 30), 12, 255, -1)
    mask = decode_mask(encoded(".jpg", np.dstack([disc] * 3)), "m.jpg") > 127
    # JPEG blurs the rim.
    assert abs(int(mask.sum()) - int((disc > 0).sum())) < 20


def test_a_colored_mask_is_rejected() -> None:
    with pytest.raises(DataError, match=r"m\.png is in color, but a mask must be grey"):
        decode_mask(encoded(".png", RGB), "m.png")


def palette_png(indices: np.ndarray, *palette: tuple[int, int, int], suffix: str = "png") -> bytes:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([channel for color in palette for channel in color])
    stream = io.BytesIO()
    image.save(stream, suffix)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_the_values_of_a_palette_of_colors_are_its_indices(suffix: str) -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]])
    data = palette_png(indices, (0, 0, 0), (128, 0, 0), (0, 128, 0), suffix=suffix)
    np.testing.assert_array_equal(decode_mask(data, "m"), indices)
    colors = decode_mask_colors(data, "m")
    assert colors[0].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def test_the_values_of_a_grey_palette_are_its_levels() -> None:
    data = palette_png(np.array([[0, 1]]), (0, 0, 0), (255, 255, 255))
    assert decode_mask(data, "m").tolist() == [[0, 255]]


def test_a_truncated_palette_image_is_an_error() -> None:
    data = palette_png(np.zeros((9, 9)), (0, 0, 0), (128, 0, 0))
    with pytest.raises(DataError, match=r"m\.png cannot be decoded"):
        decode_mask(data[:-20], "m.png")


def test_the_colors_of_a_mask_are_rgb_of_8_bits() -> None:
    np.testing.assert_array_equal(decode_mask_colors(encoded(".png", RGB), "m"), RGB)
    grey = np.array([[0, 9]], np.uint8)
    assert decode_mask_colors(encoded(".png", grey), "m").tolist() == [[[0, 0, 0], [9, 9, 9]]]
    with pytest.raises(DataError, match=r"m has 16 bits, but a mask in color must have 8"):
        decode_mask_colors(encoded(".png", grey.astype(np.uint16)), "m")


def test_jpeg_alone_is_lossy() -> None:
    assert is_lossy(encoded(".jpg", GREY))
    assert not is_lossy(encoded(".png", GREY))


@pytest.mark.parametrize(
    "slices",
    [
        [GREY, GREY // 2, GREY // 3],
        [WIDE, WIDE // 2, WIDE // 3],
        [GREY, WIDE, WIDE.astype(np.int16) - 900],
    ],
    ids=["8 bits", "16 bits", "mixed"],
)
def test_the_pages_of_a_tiff_are_the_channels_of_a_stack(slices: list[NDArray]) -> None:
    stack = decode_stack(encode_stack(slices), "a.tif", 3)
    assert stack.dtype == (np.uint8 if all(each.dtype == np.uint8 for each in slices) else np.int32)
    assert np.array_equal(stack, np.stack(slices, axis=-1))


def test_a_slice_alone_is_grey() -> None:
    assert np.array_equal(decode_stack(encoded(".png", GREY), "a.png", 5), GREY[..., None])
    color = decode_stack(encode_image(RGB), "a.png", 5)
    assert np.array_equal(color, to_grey(RGB))
    assert np.array_equal(decode_stack(encode_image(RGB), "a.png", 1), RGB)


def test_another_number_of_pages_is_an_error() -> None:
    pages = encode_stack([GREY, GREY])
    with pytest.raises(DataError, match=r"a\.tif contains 2 images: .* one slice, or 3 slices"):
        decode_stack(pages, "a.tif", 3)
    with pytest.raises(DataError, match="contains several images: save one slice per file"):
        decode_stack(pages, "a.tif", 1)
    with pytest.raises(DataError, match=r"image 2 of a\.tif has 50 x 20 pixels, but its neighbour"):
        decode_stack(encode_stack([GREY, GREY[:20], GREY]), "a.tif", 3)
