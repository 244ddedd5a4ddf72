"""A store of small objects: a folder, or a prefix of an S3 bucket, behind one interface.

May import contract.errors and contract.temp_folders. s3.py is imported only for s3:// addresses.
"""

from pathlib import Path

from contract.errors import StorageError
from contract.storage.interface import TEMP_PREFIX, ObjectInfo, Storage, validate_key
from contract.storage.local import LocalStorage, atomic_path, translate_errors

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


def open_storage(url: str) -> Storage:
    """The store at a folder path (~ and file:// allowed) or at s3://bucket/prefix.

    Nothing is made and nothing is asked of the store yet. Raises StorageError for any other kind
    of address.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalStorage(Path(url).expanduser().absolute())
    if scheme == "file" and rest.startswith("/"):
        return LocalStorage(Path(rest))
    if scheme == "s3":
        # Imported here, because boto3 takes 0.2 s, which folders do not need.
        from contract.storage.s3 import open_s3

        return open_s3(url)
    raise StorageError(f"{url} is not a storage address: give a folder or s3://bucket/prefix.")
