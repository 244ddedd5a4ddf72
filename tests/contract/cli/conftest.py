"""The program whose command the tests of the command line run."""

from pathlib import Path

import pytest

from tests.programs import PROGRAM


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A command line of our shape, and a file of settings next to it."""
    (tmp_path / "package.py").write_text(PROGRAM)
    (tmp_path / "a.toml").write_text('[run]\nname = "try"\n')
    return tmp_path / "package.py"
