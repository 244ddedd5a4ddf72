"""Slices with their masks drawn over them, as tiles of a contact sheet.

The colours are of the palette of Okabe and Ito (2008), which people with any of the common kinds
of colour blindness can tell apart; the truth is outlined too, so that no judgement hangs on colour
alone: inside the outline and blue is found, inside and yellow is missed, outside is wrongly marked.
"""

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from contract import confusion

RgbImage = NDArray[np.uint8]
Pixels = NDArray[np.uint8 | np.int16 | np.float32]

FOUND = (86, 180, 233)
MISSED = (240, 228, 66)
WRONG = (230, 85, 30)
OUTLINE = (255, 255, 255)
"""RGB. Wrongly marked is the palette's vermillion, a little lighter for dark slices."""

LEGEND = {"found": FOUND, "missed": MISSED, "wrong": WRONG}
"""The colours by name, for a page's legend."""

TILE = 256
"""Longest side of a tile in pixels."""

# Three colours must be told apart by every eye; one alone lets more of the slice be seen.
_TINT, _TINT_OF_ONE = 0.6, 0.35
_PAPER, _INK = (255, 255, 255), (32, 36, 42)
_GAP, _CAPTION, _TITLE, _SWATCH = 6, 20, 34, 12
_SLICE = (60, 64, 70)
_SHEET_COLUMNS = 8
_SHEET_TILE = 208
EPOCHS_SIDE_BY_SIDE = 8


def draw_overlay(
    image: Pixels,
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8] | None = None,
    window: tuple[float, float] = (0.0, 255.0),
    size: int = TILE,
) -> RgbImage:
    """A slice in grey (or its colours) with the truth outlined and the pixels judged by tint.

    image: [H, W, C], C 1 or 3 (RGB); truth, prediction: [H, W], not 0 is foreground; window: the
    raw intensities shown as black and white. Without a prediction the truth alone is tinted,
    and more lightly. Returns RGB [h, w, 3] of the same proportions with a longest side of `size`
    pixels.
    """
    height, width = fit_size(image.shape[0], image.shape[1], size)
    base = _resized(_windowed(image, window), height, width)
    wanted = _resized_mask(truth, height, width)
    found = wanted if prediction is None else _resized_mask(prediction, height, width)
    tint = _TINT_OF_ONE if prediction is None else _TINT
    for area, colour in _judged(found, wanted):
        base[area] = (1 - tint) * base[area] + tint * np.array(colour)
    picture = base.round().astype(np.uint8)
    # OpenCV takes masks as bytes and draws colours in the order of the array's channels.
    edges, _ = cv2.findContours(wanted.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, edges, -1, OUTLINE, 1, cv2.LINE_8)
    return picture


def _judged(
    found: NDArray[np.bool_], wanted: NDArray[np.bool_]
) -> list[tuple[NDArray[np.bool_], tuple[int, int, int]]]:
    """The areas of a slice that are tinted, each with its colour."""
    return [(wanted & found, FOUND), (wanted & ~found, MISSED), (found & ~wanted, WRONG)]


def close_up(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], least: float = 0.3
) -> tuple[slice, slice]:
    """The part of a slice worth a closer look: a square around the truth's foreground.

    truth, prediction: [H, W]. The square is 1.8 times as large as what it shows, at least `least`
    of the slice's shorter side, and moved to lie inside the slice. Where the truth has no
    foreground it is the prediction's that counts, and without any the middle of the slice.
    """
    height, width = truth.shape
    rows, columns = np.nonzero(truth if truth.any() else prediction)
    if not len(rows):
        rows, columns = np.array([0, height - 1]), np.array([0, width - 1])
    extent = 1.8 * (1 + max(np.ptp(rows), np.ptp(columns)))
    side = round(min(max(extent, least * min(height, width)), height, width))
    return _inside(rows, side, height), _inside(columns, side, width)


def _inside(places: NDArray[np.int64], side: int, size: int) -> slice:
    """`side` pixels around the middle of the places, moved to lie within 0 to size."""
    start = (int(places.min()) + int(places.max()) + 1 - side) // 2
    start = min(max(start, 0), size - side)
    return slice(start, start + side)


def fit_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width scaled so that the longer one is `size`; each at least 1."""
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def image_grid(
    tiles: Sequence[RgbImage], columns: int, captions: Sequence[str] | None = None
) -> RgbImage:
    """Tiles in rows on white paper, each centred in its cell with its caption below.

    tiles: RGB, at least one, of any sizes; captions: one a tile, cut where it is too long.
    """
    if not tiles:
        raise ValueError("a contact sheet needs at least one tile")
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    below = _CAPTION if captions else 0
    rows, columns = math.ceil(len(tiles) / columns), min(columns, len(tiles))
    step_y, step_x = height + below + _GAP, width + _GAP
    sheet = _paper(rows * step_y + _GAP, columns * step_x + _GAP)
    for number, tile in enumerate(tiles):
        y, x = _GAP + number // columns * step_y, _GAP + number % columns * step_x
        _lay(sheet, tile, y + (height - tile.shape[0]) // 2, x + (width - tile.shape[1]) // 2)
        if captions:
            _write(sheet, captions[number], (x + 1, y + height + 14), 12, _INK, room=width)
    return sheet


def epoch_sheet(
    images: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    truths: NDArray[np.uint8],
    names: Sequence[str],
    threshold: float = 0.5,
) -> bytes:
    """The chosen validation slices after an epoch, judged, each with its Dice and name; a PNG.

    images: [n, H, W, C] in 0..1; probabilities: [n, H, W]; truths: [n, H, W] of 0 and 1; names: of
    the slices; n >= 1. Up to eight slices stand in one row, so that the sheets of several epochs
    line up; below them stands what the colours mean.
    """
    masks = (probabilities > threshold).astype(np.uint8)
    tiles = [
        draw_overlay(image, truth, mask, window=(0.0, 1.0), size=_SHEET_TILE)
        for image, truth, mask in zip(images, truths, masks, strict=True)
    ]
    captions = [
        f"Dice {confusion.confusion_counts(mask, truth).dice:.2f} · {name}"
        for mask, truth, name in zip(masks, truths, names, strict=True)
    ]
    sheet = image_grid(tiles, _SHEET_COLUMNS, captions)
    return encode_png(np.concatenate([sheet, _legend(sheet.shape[1])]))


def epoch_comparison(sheets: Mapping[int, bytes]) -> bytes:
    """The sheets of several epochs in one picture, the earliest first; a PNG.

    sheets: {epoch: PNG of epoch_sheet}; their sizes differ where a run was continued with another
    number of pictures. Of more than eight epochs eight are taken evenly, the first and the last
    among them.
    """
    epochs = evenly_spaced(sorted(sheets), EPOCHS_SIDE_BY_SIDE)
    pictures = [decode_png(sheets[epoch]) for epoch in epochs]
    width = max(picture.shape[1] for picture in pictures)
    parts: list[RgbImage] = []
    for epoch, picture in zip(epochs, pictures, strict=True):
        # The legend stands once, below the last epoch.
        height = picture.shape[0] - _legend(picture.shape[1]).shape[0]
        part = _paper(_TITLE + height, width)
        _write(part, f"Epoch {epoch}", (_GAP + 1, _TITLE - 8), 17, _INK, weight=600)
        _lay(part, picture[:height], _TITLE, 0)
        parts.append(part)
    return encode_png(np.concatenate([*parts, _legend(width)]))


def _legend(width: int) -> RgbImage:
    """What outline and colours mean, in as many lines as a width needs."""
    outline = "outline of the truth"
    meanings = {outline: _SLICE, "found": FOUND, "missed": MISSED, "wrongly marked": WRONG}
    places: list[tuple[int, int]] = []
    x, line = _GAP, 0
    for text in meanings:
        extent = _SWATCH + 5 + _extent(text, cv2.FontFace("sans"), 12)
        if x > _GAP and x + extent > width:
            x, line = _GAP, line + 1
        places.append((x, line * _CAPTION))
        x += extent + 14
    sheet = _paper((line + 1) * _CAPTION + _GAP, width)
    for (text, colour), (x, y) in zip(meanings.items(), places, strict=True):
        sheet[y + 3 : y + 3 + _SWATCH, x : x + _SWATCH] = colour
        if text == outline:
            corner = (x + _SWATCH - 3, y + _SWATCH)
            cv2.rectangle(sheet, (x + 2, y + 5), corner, OUTLINE, 1)
        _write(sheet, text, (x + _SWATCH + 5, y + 14), 12, _INK)
    return sheet


def evenly_spaced(items: Sequence[int], most: int) -> list[int]:
    """At most `most` of the items, evenly spaced, first and last among them, in their order."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round()
    return [items[int(place)] for place in places]


def encode_png(picture: RgbImage) -> bytes:
    """RGB [H, W, 3], or a mask [H, W], as PNG."""
    stored = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", stored)[1].tobytes()


def decode_png(png: bytes) -> RgbImage:
    """RGB uint8 [H, W, 3] of a PNG that `encode` or matplotlib made."""
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    if stored is None:
        raise ValueError("these bytes are no picture")
    return cv2.cvtColor(stored, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _windowed(image: Pixels, window: tuple[float, float]) -> NDArray[np.float32]:
    """[H, W, 3] in 0..255."""
    low, high = window
    grey = np.clip((image.astype(np.float32) - low) / (high - low), 0.0, 1.0) * 255.0
    return np.broadcast_to(grey, (*image.shape[:2], 3)).astype(np.float32)


def _resized(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    shrinks = height < image.shape[0]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=way).astype(np.float32)


def _resized_mask(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.bool_]:
    """Enlarged with smooth edges; when shrunk, even a single pixel of a mask stays visible."""
    share = _resized((np.asarray(mask) != 0).astype(np.float32), height, width)
    return share >= min(0.5, float(share.max()) or 1.0)


def _paper(height: int, width: int) -> RgbImage:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _lay(sheet: RgbImage, tile: RgbImage, y: int, x: int) -> None:
    sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile


def _write(
    sheet: RgbImage,
    text: str,
    place: tuple[int, int],
    size: int,
    colour: tuple[int, int, int],
    room: int | None = None,
    weight: int = 400,
) -> None:
    """Write on a sheet; place: x, y of the line's left end. Too long a text loses its middle."""
    font = cv2.FontFace("sans")
    if room is not None:
        text = _shortened(text, font, size, room)
    cv2.putText(sheet, text, place, colour, font, size, weight)


def _shortened(text: str, font: cv2.FontFace, size: int, room: int) -> str:
    """The text, its middle replaced by an ellipsis where it is wider than `room` pixels."""
    for kept in range(len(text), 1, -1):
        half = kept // 2
        tried = text if kept == len(text) else f"{text[: kept - half]}…{text[-half:]}"
        if _extent(tried, font, size) <= room:
            return tried
    return ""


def _extent(text: str, font: cv2.FontFace, size: int) -> int:
    """The width of a line in pixels."""
    # The size OpenCV tells leaves out the last letter's rim.
    return cv2.getTextSize((0, 0), text, (0, 0), font, size)[2] + 4
