"""A store of small objects: a folder, or a prefix of an S3 bucket."""

from contract.storage.local import (
    TEMP_PREFIX,
    LocalStorage,
    ObjectInfo,
    Storage,
    atomic_path,
    open_storage,
    translate_errors,
    validate_key,
)

__all__ = [
    "TEMP_PREFIX",
    "LocalStorage",
    "ObjectInfo",
    "Storage",
    "atomic_path",
    "open_storage",
    "translate_errors",
    "validate_key",
]
