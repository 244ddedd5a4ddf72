"""Images and masks as PNG files, and masks drawn over slices."""

import io
import zipfile
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import DataError
from contract.imaging.arrays import to_slice
from contract.imaging.segmentation_class import MaskFormat, SegmentationClass

RgbImage = NDArray[np.uint8]

# A mask of 512 x 512 takes 0.4 ms and 0.8 kB with these, 2.1 ms and 2.1 kB with OpenCV's defaults.
_MASK_OPTIONS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_NONE,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
)
_OVERLAY_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)
_OVERLAY_ALPHA = 0.4
_LEGEND_LINE, _LEGEND_COLOR = 16, (255, 255, 255)


def encode_png(image: np.ndarray, *options: int) -> bytes:
    """A PNG of an RGB image [H, W, 3] or a grey one [H, W], uint8 or uint16.

    options: of cv2.imencode.
    """
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", stored, options)[1].tobytes()


def decode_png(data: bytes) -> RgbImage:
    """RGB uint8 [H, W, 3] of a PNG that this project or matplotlib wrote."""
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if stored is None:
        raise ValueError("these bytes are not a PNG image")
    return cv2.cvtColor(stored, cv2.COLOR_BGR2RGB).astype(np.uint8)


def encode_image(image: np.ndarray) -> bytes:
    """A slice as an image file that decode_image reads back unchanged.

    PNG, or TIFF for negative values, which PNG cannot store.

    Args:
        image: [H, W] or [H, W, C] with C = 1 (grey) or 3 (RGB); uint8, uint16, int16, or int32
            with values of 16 bits.

    Raises:
        DataError: The array is not such an image.
    """
    stored = _to_stored(image)
    return cv2.imencode(".tif" if stored.dtype == np.int16 else ".png", stored)[1].tobytes()


def _to_stored(image: np.ndarray) -> np.ndarray:
    """An image as OpenCV writes it: uint8, uint16 or, for negative values, int16."""
    pixels = to_slice(image)
    if pixels.dtype != np.uint8:
        low, high = int(pixels.min()), int(pixels.max())
        if low < -(2**15) or high >= 2**16 or (low < 0 and high >= 2**15):
            raise DataError(f"a slice with values from {low} to {high} does not fit in 16 bits.")
        pixels = pixels.astype(np.int16 if low < 0 else np.uint16)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.shape[2] == 3 else pixels


def encode_stack(slices: Sequence[np.ndarray]) -> bytes:
    """A TIFF with a page for each of the slices of a stack, as decode_stack reads it.

    slices: of one size, each as in encode_image. Raises DataError if one is not such an image.
    """
    pages = [_to_stored(image) for image in slices]
    return cv2.imencodemulti(".tif", pages)[1].tobytes()


def encode_int16(image: np.ndarray) -> bytes:
    """A TIFF of a slice [H, W] of int16, such as Hounsfield units, whatever its values are."""
    assert image.dtype == np.int16
    return cv2.imencode(".tif", image)[1].tobytes()


def encode_labels(labels: np.ndarray) -> bytes:
    """A PNG of labels [H, W], uint8 or uint16, with their values."""
    return cv2.imencode(".png", labels, _MASK_OPTIONS)[1].tobytes()


def encode_mask(
    mask: np.ndarray, classes: Sequence[SegmentationClass], mask_format: MaskFormat = "indices"
) -> bytes:
    """A PNG of a mask [H, W] of class indices.

    - indices: the class indices, with a palette of the colors of the classes; a single class is
      255, without a palette;
    - values: the grey values of the classes in the masks of the training (255 for foreground above
      a threshold), or the class indices if those are in color, as one channel of 8 bits, or 16 if a
      value needs them;
    - colors: the colors of the classes, RGB.
    """
    is_binary = len(classes) == 1 and (mask_format == "indices" or classes[0].value is None)
    if is_binary and mask_format != "colors":
        return encode_png((mask != 0).astype(np.uint8) * np.uint8(255), *_MASK_OPTIONS)
    if mask_format == "colors":
        return encode_png(_color_table(classes)[mask], *_MASK_OPTIONS)
    if mask_format == "values":
        return encode_labels(value_table(classes)[mask])
    indexed = Image.fromarray(mask.astype(np.uint8))
    indexed.putpalette(_color_table(classes).tobytes())
    stream = io.BytesIO()
    indexed.save(stream, "png", compress_level=1)
    return stream.getvalue()


def decode_encoded_mask(
    data: bytes, classes: Sequence[SegmentationClass], mask_format: MaskFormat
) -> np.ndarray:
    """The class indices [H, W] of a PNG that encode_mask wrote; ValueError if it is not one."""
    if mask_format == "indices" and len(classes) > 1:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise ValueError("these bytes are not a PNG image")
    if len(classes) == 1:
        values = stored if stored.ndim == 3 else stored[..., None]
        return np.any(values != 0, axis=-1).astype(np.uint8)
    values = stored[..., ::-1] if stored.ndim == 3 else stored[..., None]
    table = _color_table(classes) if stored.ndim == 3 else value_table(classes)[:, None]
    mask = np.zeros(stored.shape[:2], np.uint8)
    for index in range(1, len(table)):
        mask[(values == table[index]).all(axis=-1)] = index
    return mask


def _color_table(classes: Sequence[SegmentationClass]) -> np.ndarray:
    """[K + 1, 3] uint8: black, then the color of each class."""
    return np.array([(0, 0, 0), *(each.color for each in classes)], np.uint8)


def value_table(classes: Sequence[SegmentationClass]) -> np.ndarray:
    """The grey values of class indices, [K + 1]: 0, then that of each class, or its index."""
    values = [
        each.value if isinstance(each.value, int) else index
        for index, each in enumerate(classes, start=1)
    ]
    return np.array([0, *values], np.uint8 if max(values) < 256 else np.uint16)


def probability_suffix(classes: Sequence[SegmentationClass]) -> str:
    """The suffix of the files that encode_probability returns."""
    return ".png" if len(classes) == 1 else ".npz"


def encode_probability(probability: np.ndarray, classes: Sequence[SegmentationClass]) -> bytes:
    """The probabilities [H, W, K] of a slice as a file.

    One class: a grey PNG of 16 bits, whose value is 65535 times the probability. Several: an NPZ
    file of NumPy with the arrays probability, float32 [H, W, K], and classes, the names.
    """
    if len(classes) == 1:
        scaled = (probability[..., 0] * 65535.0).round().astype(np.uint16)
        return encode_png(scaled, *_OVERLAY_OPTIONS)
    names = np.array([each.name for each in classes])
    stream = io.BytesIO()
    # The fastest level: NumPy's own takes a second for a slice of one megapixel and three classes.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in (("probability", probability), ("classes", names)):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return stream.getvalue()


def encode_overlay(
    image: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[SegmentationClass],
    window: tuple[float, float],
) -> bytes:
    """A PNG of a slice [H, W, C] with its mask [H, W] drawn over it in translucent colors.

    window: the raw intensities that become black and white. With several classes there is a legend
    of their names below the slice.
    """
    overlay = _apply_window(image, window)
    for index, each in enumerate(classes, start=1):
        area = mask == index
        overlay[area] = (1 - _OVERLAY_ALPHA) * overlay[area] + _OVERLAY_ALPHA * np.array(each.color)
    drawn = overlay.round().astype(np.uint8)
    if len(classes) > 1:
        drawn = np.concatenate([drawn, _draw_legend(drawn.shape[1], classes)])
    return encode_png(drawn, *_OVERLAY_OPTIONS)


def _draw_legend(width: int, classes: Sequence[SegmentationClass]) -> RgbImage:
    """A line for each class: its color and its name, on black."""
    legend = np.zeros((_LEGEND_LINE * len(classes), width, 3), np.uint8)
    for line, each in enumerate(classes):
        top = line * _LEGEND_LINE
        legend[top + 3 : top + 13, 3:13] = each.color
        cv2.putText(legend, each.name, (18, top + 12), _LEGEND_COLOR, cv2.FontFace("sans"), 11, 400)
    return legend


def _apply_window(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """float32 RGB [H, W, 3] in 0..255."""
    low, high = window
    grey = np.clip((image.astype(np.float32) - low) / (high - low), 0.0, 1.0) * 255.0
    return np.broadcast_to(grey, (*image.shape[:2], 3)).astype(np.float32)
