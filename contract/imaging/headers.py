"""An image's format and size from its first bytes, without decoding it.

A few bytes can claim any number of pixels, so a service looks at the claim before it decodes.
Read here: PNG (W3C PNG 3, 11.2.1), JPEG (ITU-T T.81, B.2.2), BMP (both headers) and TIFF 6.0 with
BigTIFF; nothing else is decoded.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from contract.errors import DataError

_PNG = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers of JPEG: C0 to CF but DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers of JPEG that stand alone: TEM and the restarts.
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
# The struct letters of TIFF's whole numbers: BYTE, SHORT, LONG, LONG8.
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 322, 323
_TIFF_TAGS = {_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT}
_MOST_TAGS = 4096


@dataclass(frozen=True)
class Header:
    """What an image says of itself."""

    kind: str
    """"PNG", "JPEG", "BMP" or "TIFF"."""
    width: int
    height: int
    pixels: int
    """Pixels a decoder has to make room for: width x height, or those of a larger TIFF tile."""


@dataclass(frozen=True)
class _Layout:
    """Where TIFF and BigTIFF differ."""

    start: int
    """Where the offset of the first page stands."""
    offset: str
    """Struct letter of an offset, a count of values and the values' field."""
    count: str
    """Struct letter of the number of entries."""
    entry: int
    """Bytes of an entry."""


_CLASSIC, _BIG = _Layout(4, "I", "H", 12), _Layout(8, "Q", "Q", 20)


class UnknownFormatError(DataError):
    """The bytes are no image of a format that is read here."""


def read_header(data: bytes) -> Header:
    """The header of an image; DataError where it is damaged or of another format."""
    for magic, (kind, read) in _READERS.items():
        if data.startswith(magic):
            try:
                width, height, tile = read(data)
            except (struct.error, IndexError, OverflowError) as error:
                raise DataError(f"the {kind} image breaks off within its header.") from error
            if width < 1 or height < 1:
                raise DataError(f"the {kind} image says it has {width} x {height} pixels.")
            return Header(kind, width, height, max(width * height, tile))
    raise UnknownFormatError("this is no PNG, JPEG, BMP or TIFF image.")


def _png(data: bytes) -> tuple[int, int, int]:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise DataError("the PNG image has no header chunk.")
    return width, height, 0


def _bmp(data: bytes) -> tuple[int, int, int]:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    # A negative height is an image from top to bottom.
    return width, abs(height), 0


def _jpeg(data: bytes) -> tuple[int, int, int]:
    """Walk the segments to the frame header; bytes between them are skipped, as in libjpeg."""
    place = 2
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            raise IndexError
        while data[place] == 0xFF:
            place += 1
        marker, place = data[place], place + 1
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 3)
            return width, height, 0
        if marker in (0xD9, 0xDA):
            raise DataError("the JPEG image has no frame header before its data.")
        if marker and marker not in _BARE:
            place += max(struct.unpack_from(">H", data, place)[0], 2)


def _tiff(data: bytes) -> tuple[int, int, int]:
    """The one page of a TIFF file; several are refused, as the trainer does."""
    order = "<" if data[:2] == b"II" else ">"
    layout = _BIG if data[2] + data[3] == 43 else _CLASSIC
    (start,) = struct.unpack_from(order + layout.offset, data, layout.start)
    (count,) = struct.unpack_from(order + layout.count, data, start)
    if count > _MOST_TAGS:
        raise DataError("the TIFF image has more tags than any image needs.")
    first = start + struct.calcsize(order + layout.count)
    tags: dict[int, int] = {}
    for place in range(first, first + count * layout.entry, layout.entry):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if tag in _TIFF_TAGS:
            # Decoders believe signed numbers as well, which TIFF 6.0 has for none of these.
            if kind not in _WHOLE:
                raise DataError(
                    f"the TIFF image states its tag {tag} in field type {kind}, where an unsigned "
                    "whole number belongs: save it anew."
                )
            tags.setdefault(tag, _tiff_value(data, place, order, layout))
    if any(struct.unpack_from(order + layout.offset, data, first + count * layout.entry)):
        raise DataError("the TIFF image holds several pictures: one slice is expected.")
    if tags.get(_SAMPLES, 1) > 4 or tags.get(_BITS, 1) > 16:
        raise DataError("the TIFF image has more than 4 channels or more than 16 bits a channel.")
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)
    return tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0), tile


def _tiff_value(data: bytes, place: int, order: str, layout: _Layout) -> int:
    """The first value of an entry, which lies in the entry itself or where it points."""
    kind, count = struct.unpack_from(order + "H" + layout.offset, data, place + 2)
    letter = _WHOLE[kind]
    value = place + 4 + struct.calcsize(layout.offset)
    if count * struct.calcsize(letter) > struct.calcsize(layout.offset):
        (value,) = struct.unpack_from(order + layout.offset, data, value)
    return struct.unpack_from(order + letter, data, value)[0]


_READERS: dict[bytes, tuple[str, Callable[[bytes], tuple[int, int, int]]]] = {
    _PNG: ("PNG", _png),
    b"\xff\xd8": ("JPEG", _jpeg),
    b"BM": ("BMP", _bmp),
    b"II*\0": ("TIFF", _tiff),
    b"MM\0*": ("TIFF", _tiff),
    b"II+\0": ("TIFF", _tiff),
    b"MM\0+": ("TIFF", _tiff),
}
