"""docs/from-antillia.md has the table of all keys."""

import subprocess
import sys
from pathlib import Path

from contract.config import setting_types
from contract.config.ini.keys import ALIASES, KEYS
from contract.config.ini.reference import render_key_table

ROOT = Path(__file__).parents[4]


def test_the_page_is_current() -> None:
    page = (ROOT / "docs/from-antillia.md").read_text(encoding="utf-8")
    assert page.endswith(render_key_table()), (
        "replace the table by: python -m contract.config.ini.reference"
    )


def test_every_key_has_a_row_and_every_name_a_place() -> None:
    table = render_key_table()
    assert sum(line.startswith("| `") for line in table.splitlines()) == len(KEYS)
    for (section, key), (other, _) in ALIASES.items():
        assert f"`{key}`" in table or section != other


def test_settings_that_take_a_value_as_it_is_exist() -> None:
    settings = {key.setting for key in KEYS.values() if key.setting}
    assert settings <= setting_types().keys()


def test_the_command_prints_the_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "contract.config.ini.reference"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == render_key_table()
