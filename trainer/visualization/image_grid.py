"""Grids of images with captions, and the preview sheets of a training run."""

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from contract.confusion import class_counts, pooled_counts
from contract.imaging.encode import decode_png, encode_png
from contract.imaging.segmentation_class import SegmentationClass
from trainer.visualization.overlays import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    OUTLINE,
    TRUE_POSITIVE,
    RgbImage,
    draw_overlay,
)

MAX_COMPARED_EPOCHS = 8

_BACKGROUND, _TEXT_COLOR = (255, 255, 255), (32, 36, 42)
_GAP, _CAPTION_HEIGHT, _TITLE_HEIGHT, _SWATCH = 6, 20, 34, 12
_OUTLINE_SWATCH = (60, 64, 70)
_SHEET_COLUMNS = 8
_SHEET_TILE_SIZE = 208


def image_grid(
    tiles: Sequence[RgbImage], columns: int, captions: Sequence[str] | None = None
) -> RgbImage:
    """Tiles in rows on a white background, each centered in its cell with its caption below.

    tiles: RGB, at least one, of any sizes; captions: one per tile, shortened if too long.
    """
    if not tiles:
        raise ValueError("an image grid needs at least one tile")
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    caption_height = _CAPTION_HEIGHT if captions else 0
    rows, columns = math.ceil(len(tiles) / columns), min(columns, len(tiles))
    step_y, step_x = height + caption_height + _GAP, width + _GAP
    grid = _blank(rows * step_y + _GAP, columns * step_x + _GAP)
    for number, tile in enumerate(tiles):
        y, x = _GAP + number // columns * step_y, _GAP + number % columns * step_x
        _paste(grid, tile, y + (height - tile.shape[0]) // 2, x + (width - tile.shape[1]) // 2)
        if captions:
            position = (x + 1, y + height + 14)
            _draw_text(grid, captions[number], position, 12, max_width=width)
    return grid


def epoch_sheet(
    images: Sequence[NDArray[np.float32]],
    predictions: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.uint8] | None],
    names: Sequence[str],
    classes: Sequence[SegmentationClass],
) -> bytes:
    """The preview slices after an epoch, each with its prediction, Dice and name; a PNG.

    Up to eight slices are in one row, so that the sheets of several epochs line up; the legend is
    below them.

    Args:
        images: [H, W, C] in 0..1, at least one.
        predictions: Class indices [H, W].
        masks: The ground truth, class indices [H, W] for each slice that has one.
        names: The names of the slices.
        classes: The classes of the masks. With several, the Dice is that of all their pixels.
    """
    tiles = [
        draw_overlay(image, mask, prediction, (0.0, 1.0), _SHEET_TILE_SIZE, classes)
        for image, mask, prediction in zip(images, masks, predictions, strict=True)
    ]
    captions = [
        f"{_score(prediction, mask, len(classes))} · {name}"
        for prediction, mask, name in zip(predictions, masks, names, strict=True)
    ]
    grid = image_grid(tiles, _SHEET_COLUMNS, captions)
    return encode_png(np.concatenate([grid, _draw_legend(grid.shape[1], classes)]))


def _score(prediction: NDArray[np.uint8], mask: NDArray[np.uint8] | None, num_classes: int) -> str:
    if mask is None:
        return "no ground truth"
    return f"Dice {pooled_counts(class_counts(prediction, mask, num_classes)).dice:.2f}"


def epoch_comparison(sheets: Mapping[int, bytes], classes: Sequence[SegmentationClass]) -> bytes:
    """The sheets of several epochs in one image, the earliest first; a PNG.

    sheets: {epoch: PNG of epoch_sheet}, all with these classes. Their sizes differ if a run was
    resumed with another number of preview images. Of more than eight epochs, eight are selected
    evenly, including the first and the last.
    """
    epochs = evenly_spaced(sorted(sheets), MAX_COMPARED_EPOCHS)
    images = [decode_png(sheets[epoch]) for epoch in epochs]
    width = max(image.shape[1] for image in images)
    parts: list[RgbImage] = []
    for epoch, image in zip(epochs, images, strict=True):
        # There is one legend, below the last epoch.
        height = image.shape[0] - _draw_legend(image.shape[1], classes).shape[0]
        part = _blank(_TITLE_HEIGHT + height, width)
        _draw_text(part, f"Epoch {epoch}", (_GAP + 1, _TITLE_HEIGHT - 8), 17, font_weight=600)
        _paste(part, image[:height], _TITLE_HEIGHT, 0)
        parts.append(part)
    return encode_png(np.concatenate([*parts, _draw_legend(width, classes)]))


def evenly_spaced(items: Sequence[int], max_count: int) -> list[int]:
    """At most max_count of the items, evenly spaced, including the first and the last."""
    positions = np.linspace(0, len(items) - 1, min(max_count, len(items))).round()
    return [items[int(position)] for position in positions]


def _draw_legend(width: int, classes: Sequence[SegmentationClass]) -> RgbImage:
    """The meaning of outline and colors, in as many lines as the width requires."""
    outline = "outline of the ground truth"
    colors = {
        "true positive": TRUE_POSITIVE,
        "false negative": FALSE_NEGATIVE,
        "false positive": FALSE_POSITIVE,
    }
    if len(classes) > 1:
        colors = {each.name: each.color for each in classes}
    entries = {outline: _OUTLINE_SWATCH, **colors}
    positions: list[tuple[int, int]] = []
    x, line = _GAP, 0
    for text in entries:
        entry_width = _SWATCH + 5 + _text_width(text, cv2.FontFace("sans"), 12)
        if x > _GAP and x + entry_width > width:
            x, line = _GAP, line + 1
        positions.append((x, line * _CAPTION_HEIGHT))
        x += entry_width + 14
    legend = _blank((line + 1) * _CAPTION_HEIGHT + _GAP, width)
    for (text, color), (x, y) in zip(entries.items(), positions, strict=True):
        legend[y + 3 : y + 3 + _SWATCH, x : x + _SWATCH] = color
        if text == outline:
            corner = (x + _SWATCH - 3, y + _SWATCH)
            cv2.rectangle(legend, (x + 2, y + 5), corner, OUTLINE, 1)
        _draw_text(legend, text, (x + _SWATCH + 5, y + 14), 12)
    return legend


def _blank(height: int, width: int) -> RgbImage:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _paste(image: RgbImage, tile: RgbImage, y: int, x: int) -> None:
    image[y : y + tile.shape[0], x : x + tile.shape[1]] = tile


def _draw_text(
    image: RgbImage,
    text: str,
    position: tuple[int, int],
    size: int,
    max_width: int | None = None,
    font_weight: int = 400,
) -> None:
    """Draw text; position: x, y of the left end of its baseline. Long text loses its middle."""
    font = cv2.FontFace("sans")
    if max_width is not None:
        text = _shorten(text, font, size, max_width)
    cv2.putText(image, text, position, _TEXT_COLOR, font, size, font_weight)


def _shorten(text: str, font: cv2.FontFace, size: int, max_width: int) -> str:
    """The text, its middle replaced by an ellipsis if it is wider than max_width pixels."""
    for length in range(len(text), 1, -1):
        half = length // 2
        shortened = text if length == len(text) else f"{text[: length - half]}…{text[-half:]}"
        if _text_width(shortened, font, size) <= max_width:
            return shortened
    return ""


def _text_width(text: str, font: cv2.FontFace, size: int) -> int:
    """The width of a line in pixels."""
    # The size that OpenCV returns excludes the edge of the last letter.
    return cv2.getTextSize((0, 0), text, (0, 0), font, size)[2] + 4
