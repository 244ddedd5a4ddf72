"""Slices with their masks drawn over them.

The colors are from the palette of Okabe and Ito (2008), which people with the common kinds of color
blindness can distinguish. The ground truth is outlined too, so that nothing depends on color alone:
inside the outline, blue is a true positive and yellow a false negative; outside of it, red is a
false positive. With several classes each has its own color instead: its prediction is filled and
its ground truth outlined. The prediction of a slice without ground truth is green.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from contract.imaging.segmentation_class import SegmentationClass

RgbImage = NDArray[np.uint8]
Pixels = NDArray[np.uint8 | np.int32 | np.float32]

TRUE_POSITIVE = (86, 180, 233)
FALSE_NEGATIVE = (240, 228, 66)
FALSE_POSITIVE = (230, 85, 30)
NO_GROUND_TRUTH = (0, 158, 115)
OUTLINE = (255, 255, 255)
"""RGB. The color of false positives is the palette's vermillion, lighter for dark slices."""

OUTLINE_A, OUTLINE_B = TRUE_POSITIVE, (230, 159, 0)
"""The outlines of the predictions of a first and a second network."""

LEGEND = {
    "true_positive": TRUE_POSITIVE,
    "false_negative": FALSE_NEGATIVE,
    "false_positive": FALSE_POSITIVE,
}
"""The colors by name, for the legend of a page with one class."""

TILE_SIZE = 256
"""Longest side of an overlay in pixels."""

_DASH = 4
# Three colors of true and false must be distinguishable; others may show more of the slice.
_ALPHA, _LIGHT_ALPHA = 0.6, 0.35


def draw_overlay(
    image: Pixels,
    ground_truth: NDArray[np.uint8] | None,
    prediction: NDArray[np.uint8] | None = None,
    window: tuple[float, float] = (0.0, 255.0),
    size: int = TILE_SIZE,
    classes: Sequence[SegmentationClass] = (),
) -> RgbImage:
    """A slice with the ground truth outlined and the pixels colored by true and false, or by class.

    Args:
        image: [H, W, C], C = 1 or 3 (RGB).
        ground_truth: Class indices [H, W]; 0 is background. None: the prediction is colored, not
            by true and false.
        prediction: The same; without it the ground truth is colored, more lightly.
        window: The raw intensities that become black and white.
        size: The longest side of the result in pixels.
        classes: The classes of the masks; with two or more, each has its color.

    Returns:
        RGB [h, w, 3] with the proportions of the slice.
    """
    height, width = fit_size(image.shape[0], image.shape[1], size)
    canvas = _resize(_apply_window(image, window), height, width)
    is_single = len(classes) < 2
    true_masks, predicted_masks = (
        None if mask is None else _class_masks(mask, height, width, len(classes))
        for mask in (ground_truth, prediction)
    )
    colored = predicted_masks or true_masks or []
    alpha = _ALPHA if is_single and predicted_masks and true_masks else _LIGHT_ALPHA
    if not is_single:
        areas = [(area, each.color) for area, each in zip(colored, classes, strict=True)]
    elif true_masks:
        areas = _color_areas(colored[0], true_masks[0])
    else:
        areas = [(area, NO_GROUND_TRUTH) for area in colored]
    for area, color in areas:
        canvas[area] = (1 - alpha) * canvas[area] + alpha * np.array(color)
    overlay = canvas.round().astype(np.uint8)
    outlines = [OUTLINE] if is_single else [each.color for each in classes]
    for y_true, color in zip(true_masks, outlines, strict=True) if true_masks else ():
        # OpenCV takes masks as bytes and draws colors in the channel order of the array.
        contours, _ = cv2.findContours(y_true.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(overlay, contours, -1, color, 1, cv2.LINE_8)
    return overlay


@dataclass(frozen=True)
class Outline:
    """A mask to outline."""

    mask: NDArray[np.uint8]
    """Class indices [H, W]; 0 is background."""
    color: tuple[int, int, int]
    """RGB."""
    dashed: bool = False


def draw_outlines(
    image: Pixels,
    outlines: Sequence[Outline],
    window: tuple[float, float] = (0.0, 255.0),
    size: int = TILE_SIZE,
) -> RgbImage:
    """A slice with several masks outlined, those of all classes of a mask in its color.

    Args:
        image: [H, W, C], C = 1 or 3 (RGB).
        outlines: Masks of the slice, each drawn over those before it, which are seen in the gaps
            of a dashed one.
        window: The raw intensities that become black and white.
        size: The longest side of the result in pixels.

    Returns:
        RGB [h, w, 3] with the proportions of the slice.
    """
    height, width = fit_size(image.shape[0], image.shape[1], size)
    canvas = _resize(_apply_window(image, window), height, width).round().astype(np.uint8)
    for outline in outlines:
        for index in np.unique(outline.mask[outline.mask != 0]):
            area = _resize_mask(outline.mask == index, height, width).view(np.uint8)
            contours, _ = cv2.findContours(area, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            for contour in contours:
                x, y = contour[:, 0].T
                drawn = np.arange(len(x)) % (2 * _DASH) < (_DASH if outline.dashed else 2 * _DASH)
                canvas[y[drawn], x[drawn]] = outline.color
    return canvas


def _class_masks(
    mask: NDArray[np.uint8], height: int, width: int, num_classes: int
) -> list[NDArray[np.bool_]]:
    """A resized mask [height, width] for each class; a single one of all foreground with one."""
    if num_classes < 2:
        return [_resize_mask(mask != 0, height, width)]
    return [_resize_mask(mask == index, height, width) for index in range(1, num_classes + 1)]


def _color_areas(
    y_pred: NDArray[np.bool_], y_true: NDArray[np.bool_]
) -> list[tuple[NDArray[np.bool_], tuple[int, int, int]]]:
    """The areas of a slice that are colored, each with its color."""
    return [
        (y_true & y_pred, TRUE_POSITIVE),
        (y_true & ~y_pred, FALSE_NEGATIVE),
        (y_pred & ~y_true, FALSE_POSITIVE),
    ]


def find_close_up(
    ground_truth: NDArray[np.uint8], prediction: NDArray[np.uint8], min_fraction: float = 0.3
) -> tuple[slice, slice]:
    """The rows and columns of a square around the foreground of the ground truth.

    ground_truth, prediction: [H, W]. The square is 1.8 times as large as the foreground, at least
    min_fraction of the shorter side of the slice, and moved to lie inside the slice. Without
    foreground in the ground truth that of the prediction is used, and without any the center.
    """
    height, width = ground_truth.shape
    rows, columns = np.nonzero(ground_truth if ground_truth.any() else prediction)
    if not len(rows):
        rows, columns = np.array([0, height - 1]), np.array([0, width - 1])
    extent = 1.8 * (1 + max(np.ptp(rows), np.ptp(columns)))
    size = round(min(max(extent, min_fraction * min(height, width)), height, width))
    return _center_interval(rows, size, height), _center_interval(columns, size, width)


def _center_interval(positions: NDArray[np.int64], size: int, limit: int) -> slice:
    """`size` pixels around the center of the positions, moved to lie within 0 to limit."""
    start = (int(positions.min()) + int(positions.max()) + 1 - size) // 2
    start = min(max(start, 0), limit - size)
    return slice(start, start + size)


def fit_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width scaled so that the longer one is `size`; each at least 1."""
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _apply_window(image: Pixels, window: tuple[float, float]) -> NDArray[np.float32]:
    """[H, W, 3] in 0..255."""
    low, high = window
    grey = np.clip((image.astype(np.float32) - low) / (high - low), 0.0, 1.0) * 255.0
    return np.broadcast_to(grey, (*image.shape[:2], 3)).astype(np.float32)


def _resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    shrinks = height < image.shape[0]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=interpolation).astype(np.float32)


def _resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Enlarged with smooth edges; if reduced, even a single pixel of a mask stays visible."""
    coverage = _resize(np.asarray(mask).astype(np.float32), height, width)
    return coverage >= min(0.5, float(coverage.max()) or 1.0)
