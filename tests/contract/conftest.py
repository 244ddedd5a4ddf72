"""A store of either kind."""

from pathlib import Path

import pytest

from contract.storage import Storage, open_storage


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty store: a folder that does not exist yet, or ("s3") a prefix of an empty bucket."""
    if getattr(request, "param", "folder") == "folder":
        return open_storage(str(tmp_path / "store"))
    return open_storage(request.getfixturevalue("s3") + "/some/prefix")
