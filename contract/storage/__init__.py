"""A store of small objects: a folder, or a prefix of an S3 bucket."""

from contract.storage.local import (
    PARTIAL,
    Entry,
    FolderStorage,
    Storage,
    checked_key,
    open_storage,
    partial_beside,
    plainly,
)

__all__ = [
    "PARTIAL",
    "Entry",
    "FolderStorage",
    "Storage",
    "checked_key",
    "open_storage",
    "partial_beside",
    "plainly",
]
