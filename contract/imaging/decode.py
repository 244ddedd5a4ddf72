"""Pictures of slices and masks, decoded: jpg, png, bmp, tif, of 8 or 16 bits.

OpenCV refuses files that end too early. A JPEG that was damaged in its middle carries no check
sum and is decoded as far as it goes; no reader can tell.
"""

from functools import reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from contract.storage import Storage

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

# Grey or colour and 8 or 16 bits as the file has them; drops alpha, turns as EXIF says.
_AS_STORED = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
_PNG, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# JPEG may colour a grey mask by a few levels; a picture in colours differs by far more.
_COLOUR_TOLERANCE = 16


def read_image(storage: Storage, key: str) -> NDArray[np.uint8] | NDArray[np.int16]:
    """[H, W, C], C = 1 (grey) or 3 (RGB; alpha is dropped), uint8 or, of 16-bit files, int16.

    Raises DataError naming the file where it cannot be used, StorageError where it is missing.
    """
    return decode_image(storage.read(key), f"{storage.url}/{key}")


def read_mask(storage: Storage, key: str, threshold: int) -> NDArray[np.uint8]:
    """[H, W] of 0 and 1: foreground where the value is greater than the threshold.

    Raises DataError naming the file where it cannot be used, StorageError where it is missing.
    """
    values = decode_mask(storage.read(key), f"{storage.url}/{key}")
    return (values > threshold).astype(np.uint8)


def decode_image(data: bytes, name: str) -> NDArray[np.uint8] | NDArray[np.int16]:
    """An image file's bytes as read_image gives them; name: the file's, for the error."""
    pixels = _pixels(data, name)
    if pixels.dtype != np.uint16:
        return pixels
    if pixels.max() > np.iinfo(np.int16).max:
        raise DataError(
            f"{name} holds the value {pixels.max()}, above 32767, the greatest that fits: save it "
            "as signed 16-bit TIFF, or subtract an offset from all slices alike."
        )
    return pixels.astype(np.int16)


def decode_mask(data: bytes, name: str) -> NDArray[np.integer]:
    """A mask file's bytes as values [H, W]: its one channel, or the greatest of equal ones.

    Channels may differ by the little that JPEG makes of grey; a coloured mask is refused.
    """
    pixels = _pixels(data, name)
    # Channel by channel: numpy's minimum over an axis of 3 takes ten times as long.
    channels = [pixels[..., index] for index in range(pixels.shape[2])]
    highest, lowest = reduce(np.maximum, channels), reduce(np.minimum, channels)
    if (highest.astype(np.int32) - lowest).max() > _COLOUR_TOLERANCE:
        raise DataError(
            f"{name} is in colours, but a mask is grey: save it as one channel, "
            "foreground bright and background 0."
        )
    return highest


def _pixels(data: bytes, name: str) -> NDArray:
    """[H, W, 1 or 3] as stored (RGB order, no alpha), uint8, uint16 or int16."""
    pages = _pages(data)
    if not pages:
        raise DataError(
            f"{name} cannot be read ({len(data)} bytes): it is damaged, cut short or no picture; "
            "replace it."
        )
    if len(pages) > 1:
        raise DataError(f"{name} holds {len(pages)} pictures: save one slice a file.")
    pixels = pages[0]
    if pixels.dtype not in (np.uint8, np.uint16, np.int16):
        raise DataError(f"{name} holds {pixels.dtype} values: save it with 8 or 16 bits.")
    if pixels.ndim == 2:
        return pixels[..., None]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _pages(file: bytes) -> list[NDArray]:
    """The pictures in a file (more than one only in a TIFF); none where it cannot be read."""
    if file.startswith(_PNG) and _PNG_END not in file:
        return []  # Else libpng writes its own line beside our error.
    data = np.frombuffer(file, np.uint8)
    # As does OpenCV.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        if file[:4] in _TIFF:
            read, pages = cv2.imdecodemulti(data, _AS_STORED)
            return list(pages) if read else []
        pixels = cv2.imdecode(data, _AS_STORED)
    except cv2.error:
        return []
    return [] if pixels is None else [pixels]
