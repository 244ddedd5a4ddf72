"""Images and masks from files: PNG, JPEG, BMP, TIFF, GIF and WebP with 8 or 16 bits.

Training and serving decode with these functions, so they cannot differ. OpenCV rejects files that
end too early. A JPEG that is damaged in the middle has no checksum and is decoded as far as
possible; no reader can detect that.
"""

import io
from functools import reduce

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import DataError
from contract.imaging.arrays import to_grey
from contract.imaging.headers import Header, UnknownFormatError, read_header
from contract.imaging.slice_neighbours import stack_slices
from contract.storage import Storage

# Grey or color and 8 or 16 bits as in the file; drops alpha, rotates according to EXIF.
_AS_STORED = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
_PNG, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
_GIF, _JPEG, _LOSSY_WEBP = b"GIF8", b"\xff\xd8", b"WEBPVP8 "
# The color type of a PNG with a palette is at this position (W3C PNG 3, 11.2.1).
_PNG_COLOR_TYPE, _PNG_PALETTE = 25, 3
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# JPEG may change the channels of a grey mask by a few levels; a color image differs by far more.
_COLOR_TOLERANCE = 16


def read_image(storage: Storage, key: str) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Read an image: [H, W, C], C = 1 (grey) or 3 (RGB), uint8, or int32 from 16-bit files.

    Raises DataError naming the file if it cannot be used, StorageError if it is missing.
    """
    return decode_image(storage.read(key), f"{storage.url}/{key}")


def decode_image(data: bytes, name: str) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Decode an image.

    Args:
        data: The content of a PNG, JPEG, BMP, TIFF, GIF or WebP file.
        name: What an error calls it: the name of the file, or "the image".

    Returns:
        [H, W, C] with C = 1 (grey) or 3 (RGB): uint8, or int32 for signed and unsigned 16 bits;
        alpha is dropped.

    Raises:
        DataError: It is damaged, has another format or several pages, or its content is in its
            alpha channel.
    """
    (pixels,) = _decode_pixels(data, name)
    if pixels.min() == pixels.max():
        _check_alpha(data, name)
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)


def decode_stack(data: bytes, name: str, stack_size: int) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Decode a slice and its neighbours for a network that is given stack_size slices.

    Args:
        data: The content of a TIFF file with a page for each slice, the lowest slice first; or of
            an image of the slice alone.
        name: What an error calls it.
        stack_size: 2n + 1 slices with n neighbours on each side.

    Returns:
        Grey, [H, W, stack_size], or [H, W, 1] of a slice alone; uint8 or int32.

    Raises:
        DataError: As in decode_image, or it contains another number of slices.
    """
    if stack_size == 1 or _check_header(data, name, stack_size).pages == 1:
        pixels = decode_image(data, name)
        return pixels if stack_size == 1 else to_grey(pixels)
    pages = _decode_pixels(data, name, stack_size)
    if len(pages) != stack_size:
        raise DataError(
            f"{name} contains {len(pages)} images: the network needs one slice, or {stack_size} "
            "slices that follow each other."
        )
    typed = [page if page.dtype == np.uint8 else page.astype(np.int32) for page in pages]
    return stack_slices(typed, [f"image {number} of {name}" for number in range(1, stack_size + 1)])


def decode_mask(data: bytes, name: str) -> NDArray[np.integer]:
    """Decode a mask in grey: values [H, W] of its channel, or the maximum over almost equal ones.

    Channels may differ slightly, as JPEG changes grey; a mask in color is an error. If a PNG or GIF
    has a palette of colors, the values are the indices of the palette.
    """
    pixels = _decode_palette_indices(data, name)
    if pixels is None:
        (pixels,) = _decode_pixels(data, name)
    highest, largest_difference = _compare_channels(pixels)
    if largest_difference > _COLOR_TOLERANCE:
        raise DataError(
            f"{name} is in color, but a mask must be grey: save it as one channel, foreground "
            "bright and background 0, or set data.classes to the colors of your classes."
        )
    return highest


def is_in_color(image: NDArray) -> bool:
    """Whether the channels of an image [H, W, C] differ by more than JPEG changes grey."""
    return image.shape[2] > 1 and _compare_channels(image)[1] > _COLOR_TOLERANCE


def _compare_channels(pixels: NDArray) -> tuple[NDArray, int]:
    """The maximum over the channels [H, W], and the largest difference of two channels."""
    # Channel by channel: NumPy's minimum over an axis of length 3 takes ten times as long.
    channels = [pixels[..., index] for index in range(pixels.shape[2])]
    highest, lowest = reduce(np.maximum, channels), reduce(np.minimum, channels)
    return highest, int((highest.astype(np.int32) - lowest).max())


def decode_mask_colors(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode a mask in color: RGB [H, W, 3] of 8 bits; a grey mask has three equal channels."""
    (pixels,) = _decode_pixels(data, name)
    if pixels.dtype != np.uint8:
        raise DataError(f"{name} has 16 bits, but a mask in color must have 8: save it again.")
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def is_lossy(data: bytes) -> bool:
    """Whether the content of a file is JPEG or lossy WebP, which change values around edges."""
    return data.startswith(_JPEG) or data[8:16] == _LOSSY_WEBP


def _decode_palette_indices(data: bytes, name: str) -> NDArray[np.uint8] | None:
    """[H, W, 1] indices of a PNG or GIF with a palette of colors; None for any other image."""
    has_palette = data.startswith(_GIF) or (
        data.startswith(_PNG)
        and len(data) > _PNG_COLOR_TYPE
        and data[_PNG_COLOR_TYPE] == _PNG_PALETTE
    )
    if not has_palette:
        return None
    _check_header(data, name)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode != "P" or _is_grey_palette(image):
                return None
            return np.asarray(image)[..., None]
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has too many pixels for an image with a palette.") from error
    except (OSError, SyntaxError, ValueError):
        return None  # OpenCV reports the damage, or reads what Pillow cannot.


def _is_grey_palette(image: Image.Image) -> bool:
    """Whether all colors of the palette are grey; they are then the values of the mask."""
    palette = np.array(image.getpalette(), np.int32).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _check_alpha(data: bytes, name: str) -> None:
    """DataError if an image of a single color has its content in its alpha channel."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
        return
    alpha = pixels[..., 3]
    if alpha.min() != alpha.max():
        raise DataError(
            f"{name} has a single color, and its content is in its alpha channel, which is not "
            "read: save the alpha channel as a grey image."
        )


def silence_opencv() -> None:
    """Suppress OpenCV's own messages about invalid files; the caller receives ours."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _decode_pixels(data: bytes, name: str, max_pages: int = 1) -> list[NDArray]:
    """The images, [H, W, 1 or 3] as stored (RGB order, no alpha), uint8, uint16 or int16."""
    _check_header(data, name, max_pages)
    pages = _decode_pages(data)
    if not pages:
        raise DataError(
            f"{name} cannot be decoded ({len(data)} bytes): it is damaged or truncated; replace it."
        )
    if len(pages) > max_pages:
        raise DataError(f"{name} contains {len(pages)} images: save one slice per file.")
    for pixels in pages:
        if pixels.dtype not in (np.uint8, np.uint16, np.int16):
            raise DataError(f"{name} contains {pixels.dtype} values: save it with 8 or 16 bits.")
    return [
        pixels[..., None] if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        for pixels in pages
    ]


def _check_header(data: bytes, name: str, max_pages: int = 1) -> Header:
    try:
        return read_header(data, max_pages)
    except UnknownFormatError as error:
        raise DataError(
            f"{name} cannot be decoded ({len(data)} bytes): it is not a PNG, JPEG, BMP, TIFF, "
            "GIF or WebP image; replace it."
        ) from error
    except DataError as error:
        raise DataError(f"{name} cannot be decoded: {error}") from error


def _decode_pages(data: bytes) -> list[NDArray]:
    """The images in a file (several are possible in a TIFF); none if it cannot be decoded."""
    if data.startswith(_PNG) and _PNG_END not in data:
        return []  # Otherwise libpng prints a line of its own.
    silence_opencv()
    encoded = np.frombuffer(data, np.uint8)
    try:
        if data[:4] in _TIFF:
            is_decoded, pages = cv2.imdecodemulti(encoded, _AS_STORED)
            return list(pages) if is_decoded else []
        pixels = cv2.imdecode(encoded, _AS_STORED)
    except cv2.error:
        return []
    return [] if pixels is None else [pixels]
