"""Both kinds of store, so that each test of the contract holds for both."""

from pathlib import Path

import pytest

from contract.storage import Storage, open_storage


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty store: a folder that does not exist yet, or a prefix of an empty bucket."""
    if request.param == "folder":
        return open_storage(str(tmp_path / "store"))
    return open_storage(request.getfixturevalue("s3") + "/some/prefix")
