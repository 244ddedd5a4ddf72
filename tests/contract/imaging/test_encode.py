"""Images become slices as the trainer reads them; masks and overlays come back as PNG."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.decode import read_image, read_mask
from contract.imaging.encode import decode_bytes, decode_mask, encode_mask, encode_overlay
from contract.storage import open_storage

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
RGB = np.dstack([GREY, GREY[::-1], 255 - GREY])
DEEP = GREY.astype(np.uint16) * 120


def encoded(suffix: str, image: np.ndarray) -> bytes:
    bgr = image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
    return cv2.imencode(suffix, bgr)[1].tobytes()


LOSSLESS = {
    "grey.png": GREY,
    "grey.bmp": GREY,
    "grey.tif": GREY,
    "rgb.png": RGB,
    "rgb.bmp": RGB,
    "rgb.tif": RGB,
    "deep.png": DEEP,
    "deep.tif": DEEP,
    "signed.tif": DEEP.astype(np.int16) - 1000,
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_intensities_survive(name: str) -> None:
    stored = LOSSLESS[name]
    found = decode_bytes(encoded(Path(name).suffix, stored))
    assert found.dtype == (np.uint8 if stored.dtype == np.uint8 else np.int16)
    np.testing.assert_array_equal(found.squeeze(), stored)
    assert found.ndim == 3


@pytest.mark.parametrize("name", [*LOSSLESS, "grey.jpg", "rgb.jpg"])
def test_the_trainer_reads_the_same(name: str, tmp_path: Path) -> None:
    stored = LOSSLESS[name.replace(".jpg", ".png")]
    data = encoded(Path(name).suffix, stored)
    (tmp_path / name).write_bytes(data)
    store = open_storage(str(tmp_path))
    expected = read_image(store, name)
    np.testing.assert_array_equal(decode_bytes(data), expected)
    assert decode_bytes(data).dtype == expected.dtype


@pytest.mark.parametrize("values", [GREY, GREY.astype(np.uint16) * 257])
@pytest.mark.parametrize("threshold", [127, 200])
def test_the_trainer_reads_the_same_mask(
    values: np.ndarray, threshold: int, tmp_path: Path
) -> None:
    """Of 16 bits too, with values that a slice must not have."""
    mask = encoded(".png", values)
    (tmp_path / "mask.png").write_bytes(mask)
    expected = read_mask(open_storage(str(tmp_path)), "mask.png", threshold)
    np.testing.assert_array_equal(decode_mask(mask, threshold), expected)
    assert expected.any()


def test_an_alpha_channel_is_dropped() -> None:
    alpha = cv2.imencode(".png", np.dstack([RGB[..., ::-1], GREY]))[1].tobytes()
    np.testing.assert_array_equal(decode_bytes(alpha), RGB)


def test_what_does_not_fit_is_rejected() -> None:
    with pytest.raises(DataError, match="above 32767"):
        decode_bytes(encoded(".png", np.full((4, 4), 40000, np.uint16)))
    with pytest.raises(DataError, match="16 bits"):
        decode_bytes(encoded(".tif", GREY.astype(np.float32)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_an_image_that_breaks_off_is_rejected(suffix: str) -> None:
    data = encoded(suffix, GREY)
    with pytest.raises(DataError, match="breaks off"):
        decode_bytes(data[: len(data) * 3 // 4])


def test_a_colored_mask_is_rejected() -> None:
    with pytest.raises(DataError, match="a mask is grey"):
        decode_mask(encoded(".png", RGB), 127)
    jpeg = encoded(".jpg", np.dstack([GREY // 128 * 255] * 3))
    assert set(np.unique(decode_mask(jpeg, 127))) == {0, 1}


def test_a_mask_comes_back_as_0_and_255() -> None:
    mask = (GREY > 100).astype(np.uint8)
    stored = cv2.imdecode(np.frombuffer(encode_mask(mask), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, mask * 255)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), 127), mask)


@pytest.mark.parametrize("image", [GREY[..., None], RGB, DEEP.astype(np.int16)[..., None]])
def test_an_overlay_tints_the_mask_alone(image: np.ndarray) -> None:
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[5:9, 5:9] = 1
    drawn, plain = (decode_bytes(encode_overlay(image, kind)) for kind in (mask, mask * 0))
    np.testing.assert_array_equal((drawn != plain).any(axis=-1), mask != 0)
    if image.dtype == np.uint8:
        np.testing.assert_array_equal(plain, np.broadcast_to(image, plain.shape))
