"""Sizes are read from headers as OpenCV decodes them, and absurd claims are only numbers."""

import io
import struct
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contract.errors import DataError
from contract.imaging.headers import UnknownFormatError, read_header

SLICE = np.random.default_rng(0).integers(0, 256, (37, 91), dtype=np.uint8)
COLOR = np.dstack([SLICE, SLICE.T[:37, :37].repeat(3, 1)[:, :91], SLICE])


def by_opencv(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def by_pillow(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOR).save(buffer, kind, **options)
    return buffer.getvalue()


IMAGES = {
    "png": by_opencv(".png", SLICE),
    "png16": by_opencv(".png", SLICE.astype(np.uint16) * 100),
    "jpeg": by_opencv(".jpg", COLOR),
    "progressive jpeg": by_pillow("JPEG", progressive=True),
    "commented jpeg": by_pillow("JPEG", comment=b"\xff\xc0" * 100),
    "bmp": by_opencv(".bmp", COLOR),
    "grey bmp": by_opencv(".bmp", SLICE),
    "tiff": by_opencv(".tif", SLICE),
    "tiff16": by_opencv(".tif", SLICE.astype(np.uint16) * 100),
    "deflated tiff": by_pillow("TIFF", compression="tiff_adobe_deflate"),
    "big tiff": by_pillow("TIFF", big_tiff=True),
    "gif": by_pillow("GIF"),
    "interlaced gif": by_pillow("GIF", interlace=1, comment=b"comment"),
    "lossy webp": by_pillow("WEBP"),
    "lossless webp": by_pillow("WEBP", lossless=True),
    "extended webp": by_pillow("WEBP", exif=b"Exif\0\0MM\0*" + bytes(8)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_the_size_is_what_opencv_decodes(name: str) -> None:
    header = read_header(IMAGES[name])
    assert (header.height, header.width) == (37, 91)
    assert header.pixels == 37 * 91
    assert header.kind.upper() == name.split()[-1].upper().rstrip("16")


def test_a_big_endian_tiff_is_read() -> None:
    entries = [(256, 3, 1, struct.pack(">HH", 91, 0)), (257, 4, 1, struct.pack(">I", 37))]
    body = b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries)
    header = read_header(b"MM\0*" + struct.pack(">IH", 8, len(entries)) + body + bytes(4))
    assert (header.width, header.height) == (91, 37)


def test_a_huge_tile_of_a_small_tiff_counts() -> None:
    assert read_header(tiled(4)).pixels == 30000 * 30000


@pytest.mark.parametrize("kind", [6, 8, 9, 17])
def test_a_tile_with_a_signed_size_is_rejected(kind: int) -> None:
    """SBYTE, SSHORT, SLONG, SLONG8: OpenCV decodes such a file and makes room for the tile."""
    with pytest.raises(DataError, match="field type"):
        read_header(tiled(kind))


def tiled(kind: int) -> bytes:
    """A TIFF of 8 x 8 pixels in a tile of 30000 x 30000, whose size is of a field type."""
    tags = {256: (4, 8), 257: (4, 8), 322: (kind, 30000), 323: (kind, 30000)}
    body = b"".join(struct.pack("<HHII", tag, t, 1, value) for tag, (t, value) in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


def test_a_png_may_claim_four_billion_squared() -> None:
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 2**32 - 1, 2**32 - 1)
    assert read_header(data).pixels == (2**32 - 1) ** 2


def test_a_tiff_of_several_pictures_is_rejected() -> None:
    pages = cv2.imencodemulti(".tif", [SLICE, SLICE])[1].tobytes()
    with pytest.raises(DataError, match="several images"):
        read_header(pages)


def test_the_pixels_of_all_pages_count() -> None:
    pages = cv2.imencodemulti(".tif", [SLICE, SLICE[:20], SLICE])[1].tobytes()
    header = read_header(pages, max_pages=5)
    assert (header.pages, header.pixels) == (3, (37 + 20 + 37) * 91)
    assert (header.height, header.width) == (37, 91)
    with pytest.raises(DataError, match="more than 2 images: save one slice, or 2 slices"):
        read_header(pages, max_pages=2)


def test_pages_that_follow_each_other_in_a_circle_are_rejected() -> None:
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, 8) for tag in (256, 257))
    with pytest.raises(DataError, match="more than 7 images"):
        read_header(b"II*\0" + struct.pack("<IH", 8, 2) + tags + struct.pack("<I", 8), max_pages=7)


REJECTED = {
    "nothing": (b"", "not a PNG, JPEG, BMP, TIFF, GIF or WebP"),
    "a text": (b"hello", "not a PNG, JPEG, BMP, TIFF, GIF or WebP"),
    "a DICOM file": (bytes(128) + b"DICM" + bytes(50), "not a PNG, JPEG, BMP, TIFF, GIF or WebP"),
    "a WAV file": (b"RIFF" + bytes(4) + b"WAVE" + bytes(50), "not a PNG, JPEG, BMP, TIFF, GIF"),
    "a GIF without blocks": (b"GIF89a" + bytes(50), "unknown block"),
    "a GIF without end": (by_pillow("GIF")[:-1], "is truncated"),
    "a WebP of nothing": (b"RIFF" + bytes(4) + b"WEBPVP8X", "is truncated"),
    "a WebP of another kind": (b"RIFF" + bytes(4) + b"WEBPVP9 " + bytes(50), "unknown chunk"),
    "a PNG of nothing": (b"\x89PNG\r\n\x1a\n", "is truncated"),
    "a PNG without header": (b"\x89PNG\r\n\x1a\n" + bytes(30), "no header chunk"),
    "a BMP of no pixels": (b"BM" + bytes(40), "0 x 0"),
    "a JPEG of nothing": (b"\xff\xd8", "is truncated"),
    "a JPEG of FF alone": (b"\xff\xd8" + b"\xff" * 99, "is truncated"),
    "a JPEG without frame": (b"\xff\xd8\xff\xda\0\4\0\0", "no frame header"),
    "a TIFF that points nowhere": (b"II*\0\xff\xff\xff\xff", "is truncated"),
    "a BigTIFF that points beyond all memory": (b"II+\0" + bytes(11) + b"\x80", "is truncated"),
    "a TIFF of many tags": (b"II*\0\x08\0\0\0\xff\xff", "more tags"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_is_no_image_is_rejected(name: str) -> None:
    data, reason = REJECTED[name]
    with pytest.raises(DataError, match=reason) as caught:
        read_header(data)
    assert isinstance(caught.value, UnknownFormatError) == reason.startswith("not a PNG")


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(sorted(IMAGES)), data=st.data())
def test_damaged_headers_are_read_or_rejected(name: str, data: st.DataObject) -> None:
    image = bytearray(IMAGES[name])
    for position in data.draw(st.lists(st.integers(0, min(len(image), 200) - 1), max_size=5)):
        image[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(image)))
    with suppress(DataError):
        assert read_header(bytes(image[:cut])).pixels > 0
