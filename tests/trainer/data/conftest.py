"""Datasets in a folder, and the storage in which they are prepared."""

from pathlib import Path

import pytest

from contract.storage import Storage, open_storage
from tests.slice_folders import put_pool, put_splits


@pytest.fixture
def home(tmp_path: Path) -> Storage:
    """The storage root."""
    return open_storage(str(tmp_path / "home"))


@pytest.fixture
def source(tmp_path: Path) -> Storage:
    """A dataset in splits."""
    storage = open_storage(str(tmp_path / "slices"))
    put_splits(storage)
    return storage


@pytest.fixture
def pool(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path / "pool"))
    put_pool(storage)
    return storage
