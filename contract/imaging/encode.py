"""Images in and masks out: bytes to slices as the networks take them, masks to PNG, overlays.

Slices are decoded as the trainer decodes them (a test compares the two): grey or RGB, 8 bits as
uint8, 16 bits as int16.
"""

import cv2
import numpy as np

from contract.errors import DataError
from contract.imaging.headers import read_header

_AS_STORED = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
_INT16_MOST = 32767
_COLOR_TOLERANCE = 16
# A mask of 512 x 512 takes 0.4 ms and 0.8 kB so, 2.1 ms and 2.1 kB with OpenCV's own choice.
_PLAIN = (
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_NONE,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
)
_OVERLAY_COLOR = (255, 64, 32)
_OVERLAY_STRENGTH = 0.4


def decode_bytes(data: bytes) -> np.ndarray:
    """The slice in a PNG, JPEG, BMP or TIFF image: uint8 or int16 [H, W, C], C = 1 or 3 (RGB).

    An alpha channel is dropped. Raises DataError where the bytes are no such image, damaged, or
    of numbers that do not fit.
    """
    pixels = _pixels(data)
    if pixels.dtype != np.uint16:
        return pixels
    if pixels.max() > _INT16_MOST:
        raise DataError(
            f"the image holds intensities above {_INT16_MOST}: "
            "shift or scale them into the range of 16-bit signed numbers."
        )
    return pixels.astype(np.int16)


def decode_mask(data: bytes, threshold: int) -> np.ndarray:
    """uint8 [H, W] of a mask image of 8 or 16 bits: 1 where it is above the threshold.

    Raises DataError where the bytes are no such image, damaged, or in colours; channels may
    differ by the little that JPEG makes of grey.
    """
    channels = _pixels(data)
    highest = channels.max(axis=-1)
    if (highest.astype(np.int32) - channels.min(axis=-1)).max() > _COLOR_TOLERANCE:
        raise DataError("the mask is in colours, but a mask is grey: bright on 0.")
    return (highest > threshold).astype(np.uint8)


def encode_mask(mask: np.ndarray) -> bytes:
    """A PNG of a mask [H, W]: 0 where it is 0, else 255."""
    return _png((mask != 0).astype(np.uint8) * np.uint8(255), *_PLAIN)


def encode_overlay(image: np.ndarray, mask: np.ndarray) -> bytes:
    """A PNG of a slice [H, W, C] with its mask [H, W] tinted over it."""
    grey = _visible(image).astype(np.float32)
    tinted = (1 - _OVERLAY_STRENGTH) * grey + _OVERLAY_STRENGTH * np.array(_OVERLAY_COLOR)
    drawn = np.where(mask[..., None] != 0, tinted, grey).round().astype(np.uint8)
    return _png(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))


def silence_opencv() -> None:
    """Have OpenCV not print its own words on images that are refused; the caller is told ours."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _pixels(data: bytes) -> np.ndarray:
    """An image as stored: uint8, uint16 or int16 [H, W, C], C = 1 or 3 (RGB)."""
    kind = read_header(data).kind
    image = _decoded(data)
    if image is None:
        raise DataError(f"the {kind} image is damaged or breaks off.")
    if image.dtype not in (np.uint8, np.uint16, np.int16):
        raise DataError(f"the {kind} image holds {image.dtype} numbers: use 8 or 16 bits.")
    if image.ndim == 2:
        return image[..., None]
    return np.ascontiguousarray(image[..., ::-1])


def _decoded(data: bytes) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    except cv2.error:
        return None


def _visible(image: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a slice; 16-bit intensities are stretched from lowest to highest."""
    if image.dtype != np.uint8:
        low, high = int(image.min()), int(image.max())
        image = ((image.astype(np.float32) - low) * (255.0 / max(high - low, 1))).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _png(image: np.ndarray, *options: int) -> bytes:
    chosen = [cv2.IMWRITE_PNG_COMPRESSION, 1, *options]
    return cv2.imencode(".png", image, chosen)[1].tobytes()
