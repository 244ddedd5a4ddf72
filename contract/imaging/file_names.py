"""The names of image files: which files are images, and which names are equal."""

import unicodedata
from pathlib import PurePosixPath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")


def is_image_file(key: str) -> bool:
    """Whether a key has the suffix of an image."""
    return key.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(key: str) -> bool:
    """Whether a file or a folder of its path is hidden, as macOS' metadata is.

    macOS stores "._name.png" next to name.png in archives and on foreign file systems, and a folder
    __MACOSX in ZIP files (AppleDouble, RFC 1740).
    """
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(key).parts)


def normalized_stem(key: str) -> str:
    """The key without its suffix in Unicode's composed form, NFC (UAX #15).

    "é" may be stored as one character (Linux, Windows) or as two (macOS); both look the same.
    """
    return unicodedata.normalize("NFC", str(PurePosixPath(key).with_suffix("")))
