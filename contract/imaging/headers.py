"""An image's format and size from its first bytes, without decoding it.

A few bytes can declare any number of pixels, so a service checks the declared size before it
decodes. Supported: PNG (W3C PNG 3, 11.2.1), JPEG (ITU-T T.81, B.2.2), BMP (both headers), TIFF 6.0
with BigTIFF, GIF (GIF89a, 18 to 20) and WebP (RFC 9649); other formats are not decoded.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from contract.errors import DataError

_PNG = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers of JPEG: C0 to CF but DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers of JPEG without a segment: TEM and the restarts.
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
# The struct letters of TIFF's integer types: BYTE, SHORT, LONG, LONG8.
_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 322, 323
_TIFF_TAGS = {_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT}
_MAX_TAGS = 4096
_GIF_IMAGE, _GIF_EXTENSION, _GIF_END = 0x2C, 0x21, 0x3B
_WEBP_ANIMATION = 0x02

_Page = tuple[int, int, int]
"""Width, height, and the pixels of a tile (TIFF) or 0."""


@dataclass(frozen=True)
class Header:
    """What the header of an image declares."""

    kind: str
    """"PNG", "JPEG", "BMP", "TIFF", "GIF" or "WebP"."""
    width: int
    height: int
    pixels: int
    """Pixels that a decoder must allocate for all pages: width x height, or those of a larger TIFF
    tile."""
    pages: int = 1
    """The images in the file: several are possible in a TIFF."""


@dataclass(frozen=True)
class _Layout:
    """The differences between TIFF and BigTIFF."""

    start: int
    """The position of the offset of the first page."""
    offset: str
    """Struct letter of an offset, of a count of values and of the value field."""
    count: str
    """Struct letter of the number of entries."""
    entry: int
    """Bytes of an entry."""


_CLASSIC, _BIG = _Layout(4, "I", "H", 12), _Layout(8, "Q", "Q", 20)


class UnknownFormatError(DataError):
    """The bytes are not an image in a supported format."""


def read_header(data: bytes, max_pages: int = 1) -> Header:
    """The header of an image.

    Args:
        data: The content of the file, or its beginning.
        max_pages: The largest number of images that a TIFF file may contain.

    Raises:
        DataError: It is damaged, has another format, or contains more images.
    """
    for magic, (kind, read) in _READERS.items():
        if data.startswith(magic):
            try:
                pages = [read(data)] if read else _read_tiff_pages(data, max_pages)
            except (struct.error, IndexError, OverflowError) as error:
                raise DataError(f"the {kind} image is truncated within its header.") from error
            for width, height, _ in pages:
                if width < 1 or height < 1:
                    raise DataError(f"the {kind} image declares {width} x {height} pixels.")
            pixels = sum(max(width * height, tile) for width, height, tile in pages)
            return Header(kind, *pages[0][:2], pixels, len(pages))
    raise UnknownFormatError("this is not a PNG, JPEG, BMP, TIFF, GIF or WebP image.")


def _read_png_size(data: bytes) -> _Page:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise DataError("the PNG image has no header chunk.")
    return width, height, 0


def _read_bmp_size(data: bytes) -> _Page:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    # A negative height means that rows are stored from top to bottom.
    return width, abs(height), 0


def _read_jpeg_size(data: bytes) -> _Page:
    """Read the segments up to the frame header; bytes between them are skipped, as in libjpeg."""
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0:
            raise IndexError
        while data[position] == 0xFF:
            position += 1
        marker, position = data[position], position + 1
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            return width, height, 0
        if marker in (0xD9, 0xDA):
            raise DataError("the JPEG image has no frame header before its data.")
        if marker and marker not in _STANDALONE:
            position += max(struct.unpack_from(">H", data, position)[0], 2)


def _read_gif_size(data: bytes) -> _Page:
    """The logical screen; several images (an animation) are an error."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position, images = 13 + _color_table(flags), 0
    while (block := data[position]) != _GIF_END:
        if block == _GIF_IMAGE:
            images += 1
            # The descriptor, its color table, and the size of LZW codes.
            position += 10 + _color_table(data[position + 9]) + 1
        elif block == _GIF_EXTENSION:
            position += 2
        else:
            raise DataError("the GIF image contains an unknown block.")
        while data[position]:
            position += data[position] + 1
        position += 1
    if images > 1:
        raise DataError(f"the GIF image contains {images} images: save one slice per file.")
    return width, height, 0


def _color_table(flags: int) -> int:
    """Bytes of a GIF color table."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _read_webp_size(data: bytes) -> _Page:
    if data[8:12] != b"WEBP":
        raise UnknownFormatError("this is not a PNG, JPEG, BMP, TIFF, GIF or WebP image.")
    kind = data[12:16]
    if kind == b"VP8X":
        if data[20] & _WEBP_ANIMATION:
            raise DataError("the WebP image contains several images: save one slice per file.")
        return 1 + _uint24(data, 24), 1 + _uint24(data, 27), 0
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 0
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, 0
    raise DataError("the WebP image starts with an unknown chunk.")


def _uint24(data: bytes, position: int) -> int:
    low, high = struct.unpack_from("<HB", data, position)
    return low | high << 16


def _read_tiff_pages(data: bytes, max_pages: int) -> list[_Page]:
    """The pages of a TIFF file; more than max_pages are an error."""
    order = "<" if data[:2] == b"II" else ">"
    layout = _BIG if data[2] + data[3] == 43 else _CLASSIC
    (start,) = struct.unpack_from(order + layout.offset, data, layout.start)
    pages = []
    while not pages or start:
        if len(pages) == max_pages:
            raise DataError(
                "the TIFF image contains several images: save one slice per file."
                if max_pages == 1
                else f"the TIFF image contains more than {max_pages} images: save one slice, or "
                f"{max_pages} slices that follow each other."
            )
        page, start = _read_tiff_page(data, start, order, layout)
        pages.append(page)
    return pages


def _read_tiff_page(data: bytes, start: int, order: str, layout: _Layout) -> tuple[_Page, int]:
    """The page whose tags start at an offset, and the offset of the next page, or 0."""
    (count,) = struct.unpack_from(order + layout.count, data, start)
    if count > _MAX_TAGS:
        raise DataError("the TIFF image has more tags than an image needs.")
    first = start + struct.calcsize(order + layout.count)
    tags: dict[int, int] = {}
    for position in range(first, first + count * layout.entry, layout.entry):
        tag, kind = struct.unpack_from(order + "HH", data, position)
        if tag in _TIFF_TAGS:
            # Decoders also accept signed numbers, which TIFF 6.0 does not allow for these tags.
            if kind not in _INTEGER_TYPES:
                raise DataError(
                    f"the TIFF image has its tag {tag} in field type {kind} instead of an unsigned "
                    "integer: save it again."
                )
            tags.setdefault(tag, _tiff_value(data, position, order, layout))
    (following,) = struct.unpack_from(order + layout.offset, data, first + count * layout.entry)
    if tags.get(_SAMPLES, 1) > 4 or tags.get(_BITS, 1) > 16:
        raise DataError("the TIFF image has more than 4 channels or more than 16 bits a channel.")
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)
    return (tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0), tile), following


def _tiff_value(data: bytes, position: int, order: str, layout: _Layout) -> int:
    """The first value of an entry, stored in the entry itself or at its offset."""
    kind, count = struct.unpack_from(order + "H" + layout.offset, data, position + 2)
    letter = _INTEGER_TYPES[kind]
    value = position + 4 + struct.calcsize(layout.offset)
    if count * struct.calcsize(letter) > struct.calcsize(layout.offset):
        (value,) = struct.unpack_from(order + layout.offset, data, value)
    return struct.unpack_from(order + letter, data, value)[0]


# TIFF has pages, which _read_tiff_pages reads.
_READERS: dict[bytes, tuple[str, Callable[[bytes], _Page] | None]] = {
    _PNG: ("PNG", _read_png_size),
    b"\xff\xd8": ("JPEG", _read_jpeg_size),
    b"BM": ("BMP", _read_bmp_size),
    b"II*\0": ("TIFF", None),
    b"MM\0*": ("TIFF", None),
    b"II+\0": ("TIFF", None),
    b"MM\0+": ("TIFF", None),
    b"GIF87a": ("GIF", _read_gif_size),
    b"GIF89a": ("GIF", _read_gif_size),
    b"RIFF": ("WebP", _read_webp_size),
}
